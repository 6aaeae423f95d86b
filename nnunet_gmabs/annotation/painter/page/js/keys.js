// Keyboard shortcuts: one table for what they do and for the help page.

import * as actions from "./actions.js";
import * as generalist from "./generalist.js";
import { app } from "./state.js";
import { holdSpace } from "./tools.js";

const chooseClass = (i) => { if (app.round.classes[i]) actions.setClass(app.round.classes[i].value); };

// [keys, what is shown, what it does, run]; without run it is for the help page only.
const TABLE = [
  ["Painting"],
  [["b"], "B", "brush", () => actions.setTool("brush")],
  [["e"], "E", "eraser", () => actions.setTool("eraser")],
  [["l"], "L", "lasso: draw round an area", () => actions.setTool("lasso")],
  [["f"], "F", "fill a closed outline", () => actions.setTool("fill")],
  [["g"], "G", "ask the generalist: box or clicks", () => actions.setTool("generalist")],
  [["Enter"], "Enter", "accept the generalist's mask", generalist.accept],
  [[], "Shift + paint", "take away instead of adding"],
  [[..."123456789"], "1 – 9", "class", (key) => chooseClass(Number(key) - 1)],
  [["["], "[", "smaller brush", () => actions.setSize(app.size - 1)],
  [["]"], "]", "larger brush", () => actions.setSize(app.size + 1)],
  [["z"], "Z", "undo", () => actions.step(-1)],
  [["y"], "Y", "redo", () => actions.step(1)],
  ["Planes"],
  [["d"], "D", "plane done / reopen", actions.toggleDone],
  [["n"], "N", "structure not here: all background", actions.notHere],
  [["ArrowRight", "PageDown"], "→", "next plane", () => actions.goTo(app.current + 1)],
  [["ArrowLeft", "PageUp"], "←", "previous plane", () => actions.goTo(app.current - 1)],
  [["ArrowUp"], "wheel, ↑", "neighbouring slice (read-only)", () => actions.look(app.offset + 1)],
  [["ArrowDown"], "wheel, ↓", "neighbouring slice, other way", () => actions.look(app.offset - 1)],
  [["Escape"], "Esc", "back to the plane; drop box and clicks", actions.escape],
  ["Looking"],
  [[], "right drag", "window: width ↔, level ↕"],
  [["r"], "R", "reset the window", actions.resetWindow],
  [["+", "="], "+, Ctrl + wheel", "zoom in", () => actions.zoomBy(1.25)],
  [["-"], "−", "zoom out", () => actions.zoomBy(0.8)],
  [["0"], "0", "fit into the window", actions.zoomFit],
  [[], "Space + drag", "move the picture (or middle button)"],
  [["h"], "H", "show or hide painting", () => actions.toggle("showPaint")],
  [["c"], "C", "show or hide crossing planes", () => actions.toggle("showLines")],
  [["s"], "S", "smooth picture or plain pixels", () => actions.toggle("smooth")],
  [["p"], "P", "show the model's proposal", () => { if (app.scan.has_proposal) actions.toggle("showProposal"); }],
  [["a"], "A", "accept the proposal shown", actions.acceptProposal],
  [["?"], "?", "this page", showHelp],
];

const byKey = new Map(TABLE.flatMap(([keys, , , run]) => (run ? keys.map((key) => [key, run]) : [])));

export function showHelp() {
  document.getElementById("help").showModal();
}

function buildHelp() {
  const rows = TABLE.map(([keys, shown, words]) => {
    if (shown === undefined) return Object.assign(document.createElement("h2"), { textContent: keys });
    const row = document.createElement("div"), key = document.createElement("kbd");
    key.textContent = shown;
    row.append(words, key);
    return row;
  });
  document.getElementById("help-keys").replaceChildren(...rows);
}

function press(event) {
  if (!app.scan || document.querySelector("dialog[open]") || event.altKey) return;
  if (event.target.matches("input[type=number], select")) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (event.ctrlKey || event.metaKey) {
    if (key !== "z" && key !== "y") return;
    event.preventDefault();
    actions.step(key === "y" || event.shiftKey ? 1 : -1);
    return;
  }
  if (event.target.matches("input[type=range]") && key.startsWith("Arrow")) return;
  if (key === " " && !event.target.matches("button, input")) { event.preventDefault(); holdSpace(true); return; }
  if (key === "Enter" && event.target.matches("button")) return;
  const run = byKey.get(key);
  if (!run || (event.repeat && !["[", "]", "+", "-", "ArrowUp", "ArrowDown", "z", "y"].includes(key))) return;
  event.preventDefault();
  run(key);
}

export function startKeys() {
  buildHelp();
  document.addEventListener("keydown", press);
  document.addEventListener("keyup", (event) => { if (event.key === " ") holdSpace(false); });
  document.getElementById("help-button").addEventListener("click", showHelp);
  document.getElementById("help-close").addEventListener("click", () => document.getElementById("help").close());
}
