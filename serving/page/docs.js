// The API reference, drawn from the OpenAPI document by this page alone: it works without the internet.

const spec = await (await fetch("/openapi.json")).json();
const $ = (id) => document.getElementById(id);
const make = (tag, text = "", ...children) => {
  const element = Object.assign(document.createElement(tag), { textContent: text });
  element.append(...children);
  return element;
};

const resolve = (schema) => (schema?.$ref ? spec.components.schemas[schema.$ref.split("/").at(-1)] : schema ?? {});

/** A schema in a few words. */
function kind(schema) {
  if (schema.$ref) return schema.$ref.split("/").at(-1);
  if (schema.anyOf) return schema.anyOf.filter((one) => one.type !== "null").map(kind).join(" or ");
  if (schema.type === "array") return `list of ${kind(schema.items ?? {})}`;
  return schema.enum ? schema.enum.join(" | ") : schema.type ?? "any";
}

const row = (name, schema, about, required) =>
  make("tr", "", make("td", "", make("code", name)), make("td", kind(schema) + (required ? ", required" : "")), make("td", about ?? schema.description ?? ""));

function fields(schema) {
  const table = make("table");
  const model = resolve(schema);
  for (const [name, field] of Object.entries(model.properties ?? {})) table.append(row(name, field, null, model.required?.includes(name)));
  return table;
}

function draw(path, method, operation) {
  const id = operation.operationId;
  $("toc").append(Object.assign(make("a", "", Object.assign(make("span", method.toUpperCase()), { className: "method" }), path), { href: `#${id}` }));
  const section = Object.assign(make("section"), { id });
  section.append(make("h2", "", Object.assign(make("span", method.toUpperCase()), { className: "method" }), path), make("p", operation.description ?? operation.summary));
  const parameters = (operation.parameters ?? []).filter((one) => one.in !== "header");
  if (parameters.length) {
    const table = make("table");
    for (const one of parameters) table.append(row(one.name, one.schema, one.description, one.required));
    section.append(table);
  }
  const body = operation.requestBody?.content?.["application/json"]?.schema;
  if (body) section.append(make("p", `Body: ${kind(body)}`), fields(body));
  for (const [status, response] of Object.entries(operation.responses)) {
    const answer = response.content?.["application/json"]?.schema;
    if (!status.startsWith("2") || !answer) continue;
    const inner = answer.type === "array" ? answer.items : answer;
    section.append(make("p", `${status}: ${kind(answer)}`), fields(inner));
  }
  const errors = Object.entries(operation.responses).filter(([status]) => !status.startsWith("2"));
  section.append(make("p", `Errors: ${errors.map(([status]) => status).join(", ")}`));
  $("operations").append(section);
}

$("about").textContent = spec.info.description;
for (const [path, methods] of Object.entries(spec.paths)) for (const [method, operation] of Object.entries(methods)) draw(path, method, operation);
