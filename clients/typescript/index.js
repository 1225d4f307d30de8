// Asks a DAT retrieval service, from Node or from a page of an origin that the service allows.

const AGAIN = new Set([429, 502, 503, 504]);

/** The service said no: `status`, `code` and its sentence. */
export class RequestRefused extends Error {
  constructor(status, code, message) {
    super(message);
    Object.assign(this, { name: "RequestRefused", status, code });
  }
}

export class Client {
  #url;
  #headers;
  #timeoutMs;
  #retries;

  constructor(url, { apiKey, timeoutMs = 5_000, retries = 3 } = {}) {
    this.#url = url.replace(/\/$/, "");
    this.#headers = apiKey ? { "X-API-Key": apiKey } : {};
    this.#timeoutMs = timeoutMs;
    this.#retries = retries;
  }

  retrieve(query_id, options = {}) {
    const held = options.wait_for ? (options.timeout_ms ?? 2_000) : 0;
    return this.#get("/v1/retrieve", { query_id, ...options }, held);
  }

  retrieveMany(query_ids, options = {}) {
    return this.#send("POST", "/v1/retrieve", { query_ids, ...options }).then((found) => found.answers);
  }

  similar(item_id, options = {}) {
    return this.#get(`/v1/items/${encodeURIComponent(item_id)}/similar`, options);
  }

  session(items, options = {}) {
    return this.#send("POST", "/v1/sessions", { items, ...options });
  }

  /** The event's id is made here, once: however often the request is tried again, the click counts once. */
  click(query_id, item_id, options = {}) {
    return this.#send("POST", "/v1/clicks", { query_id, item_id, event_id: crypto.randomUUID(), ...options });
  }

  impression(answer_id, query_id, items) {
    return this.#send("POST", "/v1/impressions", { answer_id, query_id, items });
  }

  item(item_id) {
    return this.#get(`/v1/items/${encodeURIComponent(item_id)}`, {});
  }

  putItem(item_id, said = {}) {
    return this.#send("PUT", `/v1/items/${encodeURIComponent(item_id)}`, said);
  }

  patchItem(item_id, said) {
    return this.#send("PATCH", `/v1/items/${encodeURIComponent(item_id)}`, said);
  }

  deleteItem(item_id) {
    return this.#send("DELETE", `/v1/items/${encodeURIComponent(item_id)}`);
  }

  forgetQuery(query_id) {
    return this.#send("DELETE", `/v1/queries/${encodeURIComponent(query_id)}`);
  }

  #get(path, values, held = 0) {
    const query = new URLSearchParams();
    for (const [name, value] of Object.entries(values)) {
      if (value === undefined || value === null) continue;
      for (const one of Array.isArray(value) ? value : [value]) query.append(name, typeof one === "object" ? JSON.stringify(one) : one);
    }
    return this.#run(`${path}?${query}`, {}, held);
  }

  #send(method, path, body) {
    const sent = body === undefined ? {} : { body: JSON.stringify(body), headers: { "Content-Type": "application/json" } };
    return this.#run(path, { method, ...sent });
  }

  async #run(path, options, held = 0) {
    for (let attempt = 0; ; attempt++) {
      let reply = null;
      try {
        const headers = { ...options.headers, ...this.#headers };
        reply = await fetch(this.#url + path, { ...options, headers, signal: AbortSignal.timeout(this.#timeoutMs + held) });
        const found = await reply.json().catch(() => ({}));
        if (reply.ok) return found;
        if (attempt >= this.#retries || !AGAIN.has(reply.status))
          throw new RequestRefused(reply.status, found.code ?? "refused", found.message ?? `the service answered ${reply.status}`);
      } catch (problem) {
        if (problem instanceof RequestRefused || attempt >= this.#retries) throw problem;
      }
      const told = Number(reply?.headers.get("Retry-After") || NaN);
      await new Promise((go) => setTimeout(go, Number.isNaN(told) ? 100 * 2 ** attempt * (1 + Math.random()) : 1000 * told));
    }
  }
}
