// Talking to the service. Every function returns data or throws an Error whose message is a sentence for people.

async function call(path, options = {}) {
  const key = sessionStorage.getItem("key");
  const headers = { ...(options.body ? { "Content-Type": "application/json" } : {}), ...(key ? { "X-API-Key": key } : {}) };
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch {
    throw new Error("The service does not answer.");
  }
  if (response.status === 204) return null;
  if (response.status === 401) {
    const given = prompt("This service wants its API key:");
    if (given) {
      sessionStorage.setItem("key", given);
      return call(path, options);
    }
  }
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(body.message || `The service answered ${response.status}.`);
  return body;
}

const query = (values) =>
  new URLSearchParams(Object.entries(values).filter(([, value]) => value !== null && value !== "" && value !== undefined));

export const retrieve = (values) => call(`/v1/retrieve?${query({ details: true, ...values })}`);
export const click = (query_id, item_id) => call("/v1/clicks", { method: "POST", body: JSON.stringify({ query_id, item_id }) });
export const history = (id) => call(`/v1/queries/${encodeURIComponent(id)}/clicks?n=20`);
export const queries = (prefix = "") => call(`/v1/queries?${query({ limit: 60, prefix })}`).then((found) => found.query_ids);
export const categories = () => call("/v1/categories");
export const map = (query_id, background) => call(`/v1/map?${query({ query_id, background })}`);
export const progress = () => call("/v1/progress");
export const status = () => call("/v1/status");
