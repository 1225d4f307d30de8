// Talking to the service. Every function returns data or throws an Error whose message is a sentence for people;
// `wantsKey` tells that the service wants a key, or another one; `mayNot`, that the key lacks the right.

async function call(path, options = {}, patience_ms = 15_000) {
  const key = sessionStorage.getItem("key");
  const headers = { ...(options.body ? { "Content-Type": "application/json" } : {}), ...(key ? { "X-API-Key": key } : {}) };
  let response;
  try {
    response = await fetch(path, { ...options, headers, signal: AbortSignal.timeout(patience_ms) });
  } catch {
    throw new Error("The service does not answer.");
  }
  if (response.status === 204) return null;
  const body = await response.json().catch(() => ({}));
  if (response.ok) return body;
  throw Object.assign(new Error(body.message || `The service answered ${response.status}.`), { wantsKey: response.status === 401, mayNot: response.status === 403 });
}

const query = (values) =>
  new URLSearchParams(Object.entries(values).filter(([, value]) => value !== null && value !== "" && value !== undefined));

export const retrieve = (values) => call(`/v1/retrieve?${query({ details: true, ...values })}`);
export const click = (query_id, item_id, answer_id) =>
  call("/v1/clicks", { method: "POST", body: JSON.stringify({ query_id, item_id, answer_id }) });
export const history = (id) => call(`/v1/queries/${encodeURIComponent(id)}/clicks?n=20`);
export const queries = (prefix = "") => call(`/v1/queries?${query({ limit: 60, prefix })}`).then((found) => found.query_ids);
export const categories = () => call("/v1/categories");
export const progress = () => call("/v1/progress", {}, 2_000);
export const status = () => call("/v1/status", {}, 1_200);
