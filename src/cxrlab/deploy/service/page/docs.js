"use strict";

const make = (tag, text) => Object.assign(document.createElement(tag), {textContent: text});

/** Return the fields of an answer as a table; those of answers in it stand below, indented. */
function rowsOf(schema, all, depth = 0) {
  if (depth > 3) return [];
  return Object.entries(schema.properties ?? {}).flatMap(([name, field]) => {
    const options = [field, field.items, field.additionalProperties, ...(field.anyOf ?? [])];
    const inner = options.map((option) => option?.$ref?.split("/").at(-1)).find(Boolean);
    const row = document.createElement("tr");
    const first = document.createElement("td");
    first.append("\u00a0".repeat(4 * depth), make("code", name));
    row.append(first, make("td", kindOf(field)), make("td", field.description ?? ""));
    return [row, ...(inner ? rowsOf(all[inner], all, depth + 1) : [])];
  });
}

function kindOf(field) {
  if (field.anyOf) return field.anyOf.map(kindOf).join(" or ");
  if (field.enum) return field.enum.join(", ");
  if (field.type === "array") return `list of ${kindOf(field.items)}`;
  if (field.additionalProperties) return "by label";
  return field.type ?? "object";
}

function describe(path, method, operation, all) {
  const section = document.createElement("section");
  const heading = make("h2", "");
  heading.append(make("code", `${method.toUpperCase()} ${path}`));
  section.append(heading, make("p", operation.description ?? ""));
  const reference = operation.responses["200"].content?.["application/json"]?.schema?.$ref;
  const rows = reference ? rowsOf(all[reference.split("/").at(-1)], all) : [];
  if (rows.length) {
    const wide = Object.assign(document.createElement("div"), {className: "wide"});
    const table = document.createElement("table");
    table.append(...rows);
    wide.append(table);
    section.append(wide);
  }
  const others = Object.entries(operation.responses).filter(([status]) => status !== "200");
  if (others.length) {
    const list = document.createElement("ul");
    list.append(...others.map(([status, {description}]) => make("li", `${status}: ${description}`)));
    section.append(list);
  }
  return section;
}

async function start() {
  document.getElementById("example").textContent = `curl -F files=@one.png -F files=@two.dcm ${location.origin}/predict`;
  try {
    const answer = await (await fetch("openapi.json")).json();
    const sections = Object.entries(answer.paths).flatMap(([path, methods]) =>
      Object.entries(methods).map(([method, operation]) => describe(path, method, operation, answer.components.schemas)));
    document.getElementById("paths").append(...sections);
  } catch {
    const error = document.getElementById("error");
    error.textContent = "The service cannot be reached. Is it still running?";
    error.hidden = false;
  }
}

start();
