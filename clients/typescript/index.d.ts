import type { components, operations } from "./schema.js";

type Schemas = components["schemas"];
export type Answer = Schemas["RetrieveOut"];
export type Item = Schemas["ItemOut"];
type Query<O extends keyof operations> = operations[O] extends { parameters: { query?: infer Q } } ? NonNullable<Q> : never;
type InUrl<Q> = Partial<Omit<Q, "query_id" | "where" | "boost">> & {
  where?: Record<string, unknown>;
  boost?: { where: Record<string, unknown>; by: number }[];
};

export declare class RequestRefused extends Error {
  status: number;
  code: string;
}

/** One method an operation. What failed on the way, or was refused for being too much, is tried again. */
export declare class Client {
  constructor(url: string, options?: { apiKey?: string; timeoutMs?: number; retries?: number });
  /** A query's top n. `wait_for`: the token of a click that must count. */
  retrieve(query_id: string, options?: InUrl<Query<"retrieve">>): Promise<Answer>;
  retrieveMany(query_ids: string[], options?: Partial<Omit<Schemas["BatchIn"], "query_ids">>): Promise<Answer[]>;
  /** What lies nearest to an item. */
  similar(item_id: string, options?: InUrl<Query<"similar">>): Promise<Answer>;
  /** The top n of a visitor without an id, from what it has clicked, oldest first. */
  session(items: string[], options?: Partial<Omit<Schemas["SessionIn"], "items">>): Promise<Answer>;
  click(query_id: string, item_id: string, options?: Partial<Omit<Schemas["ClickIn"], "query_id" | "item_id">>): Promise<Schemas["ClickOut"]>;
  impression(answer_id: string, query_id: string, items: string[]): Promise<Schemas["Accepted"]>;
  item(item_id: string): Promise<Item>;
  putItem(item_id: string, said?: Partial<Schemas["ItemPut"]>): Promise<Item>;
  patchItem(item_id: string, said: Schemas["ItemPatch"]): Promise<Item>;
  deleteItem(item_id: string): Promise<Schemas["Accepted"]>;
  /** From now on the query is a new visitor. */
  forgetQuery(query_id: string): Promise<Schemas["Accepted"]>;
}
