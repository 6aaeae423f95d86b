// The list of scans that this round asks for.

import { app } from "./state.js";

const get = (id) => document.getElementById(id);
const minutes = (seconds) => (seconds < 60 ? (seconds ? "< 1 min" : "") : `${Math.round(seconds / 60)} min`);

function stateWords(scan) {
  if (scan.state === "finished") return `finished by ${scan.by === app.round.annotator ? "you" : scan.by}`;
  if (scan.state === "claimed") return `${scan.by} is painting (${scan.minutes_left} min)`;
  if (scan.state === "yours") return "yours";
  return scan.planes_begun ? "free, begun by you" : "free";
}

function cell(...content) {
  const made = document.createElement("td");
  made.append(...content);
  return made;
}

function dots(scan) {
  const box = document.createElement("span");
  box.className = "dots";
  for (let i = 0; i < Math.min(scan.planes, 12); i++) {
    const dot = document.createElement("i");
    dot.classList.toggle("on", i < scan.planes_done);
    box.append(dot);
  }
  return box;
}

function row(scan, open) {
  const made = document.createElement("tr"), state = document.createElement("span"), button = document.createElement("button");
  state.className = `state ${scan.state}`;
  state.textContent = stateWords(scan);
  const others = scan.state === "claimed" || (scan.state === "finished" && scan.by !== app.round.annotator);
  button.textContent = scan.state === "finished" ? "Open again" : scan.planes_begun ? "Go on" : "Paint";
  button.classList.toggle("primary", scan.state === "free" || scan.state === "yours");
  button.hidden = others;
  button.dataset.scan = scan.identifier;
  button.addEventListener("click", () => {
    button.textContent = "Opening …";
    button.disabled = true;
    open(scan.identifier);
  });
  made.append(cell(scan.identifier), cell(state), cell(dots(scan), `${scan.planes_done} / ${scan.planes}`),
    cell(minutes(scan.seconds)), cell(scan.reason || ""), cell(button));
  return made;
}

export function showList(open) {
  const { dataset, round, annotator, scans, strategy } = app.round;
  get("list-where").textContent = `${dataset} · round ${round}`;
  get("list-who").textContent = `painting as ${annotator}`;
  const done = scans.filter((s) => s.state === "finished").length;
  const planes = scans.reduce((sum, s) => sum + s.planes, 0);
  get("list-summary").textContent = `${done} of ${scans.length} scans finished · ${planes} planes asked for · chosen by ${strategy}`;
  get("list-rows").replaceChildren(...scans.map((scan) => row(scan, open)));
  get("painter").hidden = true;
  get("list").hidden = false;
}
