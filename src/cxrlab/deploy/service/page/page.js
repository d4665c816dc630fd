"use strict";

const byId = (id) => document.getElementById(id);
let token = "";  // in memory only
let card = null;
let items = [];  // one a file: {file, answer, image, heatmaps, label}
let current = null;

class Refused extends Error {}

/** Ask the service, and return its JSON; an answer that is none becomes an error in its words. */
async function ask(path, options = {}) {
  const headers = token ? {Authorization: `Bearer ${token}`} : {};
  let response;
  try {
    response = await fetch(path, {...options, headers});
  } catch {
    throw new Refused("The service cannot be reached. Is it still running?");
  }
  if (response.status === 401) byId("token-form").hidden = false;
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Refused(answer.detail || `The service answers with status ${response.status}.`);
  return answer;
}

function send(path, file) {
  const body = new FormData();
  body.append("files", file, file.name);
  return ask(path, {method: "POST", body});
}

function showError(text) {
  byId("error").textContent = text;
  byId("error").hidden = !text;
}

async function start() {
  try {
    card = await ask("card");
  } catch (error) {
    if (byId("token-form").hidden) showError(error.message);
    return;
  }
  byId("token-form").hidden = true;
  showError("");
  byId("model").textContent = `${card.model.title}, ${card.labels.length} ${card.labels.length === 1 ? "finding" : "findings"}`;
  byId("version").textContent = card.model.version;
  byId("limits").textContent = `, up to ${card.limits.max_file_mb} MB`;
  byId("how-to-heat").hidden = !card.has_heatmaps;
  showFacts();
}

function showFacts() {
  const data = card.trained_on;
  const facts = {
    "Network": card.model.title,
    "Weights and description": card.model.checkpoint,
    "Trained on": data ? [data.data, data.note].filter(Boolean).join(", ") : "",
    "Started from": card.initial_weights?.title,
    "Thresholds": card.threshold_rule,
    "Calibration": card.calibration || "none",
    "Image": `${card.image_size} x ${card.image_size} pixels, ${card.channels === 1 ? "grey" : "colour"}, ${card.resize}`,
    "Licence": card.licence,
    "Take care": card.caveats.join(" "),
  };
  const rows = Object.entries(facts).filter(([, value]) => value).flatMap(([name, value]) => [make("dt", "", name), make("dd", "", value)]);
  byId("facts").replaceChildren(...rows);
  byId("about").hidden = false;
}

function make(tag, className, text) {
  const element = document.createElement(tag);
  element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

async function take(files) {
  showError("");
  if (!files.length) return;
  if (!card) await start();
  if (!card) return;
  const own = [];  // files that are dropped meanwhile take the place of these
  items = own;
  current = null;
  byId("result").hidden = true;
  byId("files").hidden = true;
  for (const [number, file] of files.entries()) {
    byId("status").textContent = files.length > 1 ? `Reading ${number + 1} of ${files.length} …` : "Reading …";
    if (file.size > card.limits.max_file_mb * 1e6) {
      showError(`${file.name} has more than the ${card.limits.max_file_mb} MB that a file may have.`);
      continue;
    }
    try {
      const answer = await send("predict", file);
      if (items !== own) return;
      items.push({file, answer: answer.files[0], image: null, heatmaps: {}, label: null, reason: ""});
    } catch (error) {
      if (items !== own) return;
      showError(error.message);
      break;
    }
    showFiles();
    if (items.length === 1) show(items[0]);
  }
  byId("status").textContent = items.length ? `${items.length === 1 ? "1 file" : `${items.length} files`} read.` : "";
  byId("file").value = "";  // the same file may be chosen again
}

function showFiles() {
  byId("files").hidden = items.length < 2;
  byId("files").replaceChildren(...items.map((item) => {
    const button = make("button", item.answer.status, item.answer.file);
    button.type = "button";
    button.setAttribute("aria-pressed", String(item === current));
    button.addEventListener("click", () => { show(item); showFiles(); });
    return button;
  }));
}

function show(item) {
  current = item;
  const {answer} = item;
  document.body.classList.add("has-result");
  byId("result").hidden = false;
  byId("name").textContent = answer.file;
  const isRead = answer.calibrated !== null;
  byId("warning").hidden = answer.status === "ok";
  byId("warning").className = isRead ? "warning" : "error";
  byId("warning").textContent = answer.reason;
  byId("right").hidden = !isRead;
  byId("viewer").hidden = !isRead;
  document.querySelector(".sides").classList.toggle("alone", !isRead);
  drawImage(item);
  if (!isRead) return;
  const ordered = inOrder(answer);
  item.label = item.label ?? ordered[0];
  showSummary(answer);
  byId("findings").replaceChildren(...ordered.map((label) => finding(item, label)));
  look(item, item.label);
}

/** Findings that reach their threshold first, and then the more probable ones. */
function inOrder(answer) {
  const reached = (label) => answer.decisions[label] === 1 ? 1 : 0;
  return Object.keys(answer.calibrated).sort((a, b) => reached(b) - reached(a) || answer.calibrated[b] - answer.calibrated[a]);
}

function showSummary(answer) {
  const decided = Object.values(answer.decisions).filter((value) => value !== null);
  const count = decided.filter((value) => value === 1).length;
  const findings = `of ${decided.length} ${decided.length === 1 ? "finding" : "findings"}`;
  const reach = count > 1 ? "reach their threshold" : "reaches its threshold";
  const text = decided.length ? `${count || "None"} ${findings} ${reach}.` : "This model has no thresholds.";
  byId("summary").textContent = text;
}

const percent = (value) => `${(100 * value).toFixed(value < 0.0995 ? 1 : 0)} %`;

function finding(item, label) {
  const {answer} = item;
  const score = answer.probabilities[label], threshold = answer.thresholds[label];
  const row = make(card.has_heatmaps ? "button" : "div", "finding");
  row.classList.toggle("reached", answer.decisions[label] === 1);
  const bar = make("span", "bar"), filled = make("span", "score");
  bar.setAttribute("aria-hidden", "true");
  filled.style.width = `${100 * score}%`;
  bar.append(filled);
  if (threshold !== null) {
    const mark = make("span", "threshold");
    mark.style.left = `${100 * Math.min(1, threshold)}%`;
    bar.append(mark);
  }
  const reached = answer.decisions[label] === 1 ? ", reached" : "";
  const words = threshold === null ? "no threshold" : `threshold ${threshold.toFixed(3)}${reached}`;
  row.append(make("span", "label", label), make("span", "percent", percent(answer.calibrated[label])), bar, make("small", "", `score ${score.toFixed(3)}, ${words}`));
  if (card.has_heatmaps) {
    row.type = "button";
    row.dataset.label = label;
    row.setAttribute("aria-pressed", String(label === item.label));
    row.addEventListener("click", () => {
      look(item, label);
      byId("viewer").scrollIntoView({block: "nearest"});
    });
  }
  const entry = make("li", "");
  entry.append(row);
  return entry;
}

/** Show where the network looks for a finding; it is computed when it is first asked for. */
async function look(item, label) {
  item.label = label;
  for (const row of document.querySelectorAll("button.finding")) {
    row.setAttribute("aria-pressed", String(row.dataset.label === label));
  }
  drawImage(item);
  if (item.heatmaps[label] || (item.image && !card.has_heatmaps)) return;
  try {
    const answer = await send(`heatmaps?label=${encodeURIComponent(label)}`, item.file);
    item.image = answer.image;
    item.reason = answer.reason;
    Object.assign(item.heatmaps, answer.heatmaps);
  } catch (error) {
    item.reason = error.message;
  }
  if (item === current && item.label === label) drawImage(item);
}

function drawImage(item) {
  const heatmap = item.heatmaps[item.label];
  byId("image").hidden = !item.image;
  if (item.image) byId("image").src = item.image;
  byId("heat").hidden = !heatmap;
  if (heatmap) {
    byId("heat").src = heatmap.png;
    byId("heat").alt = `Heatmap of ${item.label}`;
  }
  byId("opacity-line").hidden = !card.has_heatmaps || item.answer.calibrated === null;
  let words = "";
  if (heatmap) words = heatmap.is_empty ? `Nothing in the image speaks for ${item.label}: its heatmap is empty.` : `Where the network looks for ${item.label}`;
  else if (item.reason) words = item.reason;
  else if (card.has_heatmaps && item.label) words = `Looking for ${item.label} …`;
  byId("shown").textContent = words;
}

function setOpacity() {
  byId("heat").style.opacity = byId("opacity").value / 100;
}

byId("file").addEventListener("change", (event) => take([...event.target.files]));
byId("opacity").addEventListener("input", setOpacity);
byId("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  token = byId("token").value.trim();
  byId("token").value = "";
  start();
});
for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();  // or the browser would open the file
    document.body.classList.toggle("dropping", kind === "dragenter" || kind === "dragover");
    if (kind === "drop") take([...event.dataTransfer.files]);
  });
}
setOpacity();
start();
