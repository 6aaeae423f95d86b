// The panels left and right of the stage follow the state.

import * as actions from "./actions.js";
import * as generalist from "./generalist.js";
import { thumbnail } from "./layers.js";
import { disagreements } from "./raster.js";
import { saverStatus } from "./saver.js";
import { app, currentWindow, hasPaint, plane } from "./state.js";

const get = (id) => document.getElementById(id);
const TOOLS = [
  ["brush", "Brush", "B"], ["eraser", "Eraser", "E"], ["lasso", "Lasso", "L"], ["fill", "Fill", "F"],
  ["generalist", "Ask generalist", "G"],
];
const PRESETS = [["Soft", 40, 400], ["Liver", 60, 160], ["Brain", 40, 80], ["Lung", -600, 1500], ["Bone", 400, 1800]];
const SAVED = { good: "All saved", busy: "Saving …", bad: "NOT SAVED" };

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

// Once for each scan that is opened.
export function buildPanels() {
  get("planes").replaceChildren(...app.scan.planes.map((p, number) => {
    const words = element("div", {}, element("b", { textContent: `${number + 1} · ${p.name}` }),
      element("span", { textContent: `slice ${p.index + 1} of ${p.count}` }), element("span", { className: "status" }));
    const card = element("button", { className: "plane", title: `${p.reason}\n(axis ${p.axis}, index ${p.index})`.trim() },
      element("canvas", { width: 112, height: 112 }), words);
    card.addEventListener("click", () => actions.goTo(number));
    return card;
  }));
  get("classes").replaceChildren(...app.round.classes.map((c, i) => {
    const chip = element("i");
    chip.style.background = c.colour;
    const row = element("button", { className: "class", title: `Paint ${c.name} (label ${c.value})` }, chip,
      element("span", { textContent: c.name }), i < 9 ? element("kbd", { textContent: i + 1 }) : "");
    row.addEventListener("click", () => actions.setClass(c.value));
    return row;
  }));
  get("channel").replaceChildren(...app.scan.channels.map((c, i) => element("option", { value: i, textContent: c.name })));
  get("channel-row").hidden = app.scan.channels.length < 2;
  get("proposal-row").hidden = !app.scan.has_proposal;
  get("scan-name").textContent = app.scan.identifier;
  get("scan-where").textContent = `${app.round.dataset} · round ${app.round.round}${app.scan.reason ? ` · ${app.scan.reason}` : ""}`;
}

export function buildTools() {
  get("tools").replaceChildren(...TOOLS.map(([name, words, key]) => {
    const button = element("button", { className: "tool" }, element("span", { textContent: words }), element("kbd", { textContent: key }));
    button.dataset.tool = name;
    if (name === "generalist") {
      button.disabled = !generalist.isAvailable();
      button.title = button.disabled ? `Not available: ${app.round.generalist.why_not}` : "A box or clicks give a mask to accept";
      if (button.disabled) button.firstChild.textContent = "No generalist";
    }
    if (name === "fill") button.title = "Fills a closed outline";
    button.addEventListener("click", () => actions.setTool(name));
    return button;
  }));
  const on = (id, event, run) => get(id).addEventListener(event, run);
  on("undo", "click", () => actions.step(-1));
  on("redo", "click", () => actions.step(1));
  on("done", "click", actions.toggleDone);
  on("not-here", "click", actions.notHere);
  on("finish", "click", actions.finish);
  on("back", "click", actions.backToList);
  on("accept-proposal", "click", actions.acceptProposal);
  on("generalist-accept", "click", generalist.accept);
  on("generalist-clear", "click", generalist.clear);
  on("size", "input", (e) => actions.setSize(Number(e.target.value)));
  on("opacity", "input", (e) => { app.opacity = e.target.value / 100; actions.show(); });
  on("channel", "change", (e) => actions.setChannel(Number(e.target.value)));
  on("level", "change", (e) => { if (e.target.value) actions.setWindow(Number(e.target.value), currentWindow().width); });
  on("width", "change", (e) => { if (Number(e.target.value) > 0) actions.setWindow(currentWindow().level, Number(e.target.value)); });
  for (const [id, name] of [["show-paint", "showPaint"], ["show-lines", "showLines"], ["show-proposal", "showProposal"], ["smooth", "smooth"]]) {
    on(id, "change", () => actions.toggle(name));
  }
}

function statusOf(p) {
  const wrong = p.crossings && p.mask ? disagreements(p).length : 0;
  if (wrong) return [`${p.done ? "✓ done, " : ""}${wrong} voxel${wrong > 1 ? "s disagree" : " disagrees"}`, "bad"];
  if (p.done) return [hasPaint(p) ? "✓ done" : "✓ done, all background", "done"];
  return hasPaint(p) ? ["being painted", "begun"] : ["to do", ""];
}

function showPresets() {
  const presets = app.scan.channels[app.channel].is_ct ? PRESETS : [];
  const key = presets.length ? "ct" : "plain";
  if (get("presets").dataset.key === key) return;
  get("presets").dataset.key = key;
  const buttons = presets.map(([name, level, width]) => {
    const button = element("button", { textContent: name });
    button.addEventListener("click", () => { actions.setWindow(level, width); actions.show(); });
    return button;
  });
  const reset = element("button", { textContent: "Reset window", title: "Reset window (R)" });
  reset.addEventListener("click", actions.resetWindow);
  get("presets").replaceChildren(...buttons, reset);
}

export function showSaved() {
  get("saved").textContent = SAVED[saverStatus()];
  get("saved").className = `saved ${saverStatus()}`;
}

export function showPanels() {
  const p = plane();
  [...get("planes").children].forEach((card, i) => {
    card.classList.toggle("current", i === app.current);
    const [words, kind] = statusOf(app.scan.planes[i]), status = card.querySelector(".status");
    Object.assign(status, { textContent: words, className: `status ${kind}` });
    thumbnail(card.querySelector("canvas"), app.scan.planes[i]);
  });
  [...get("classes").children].forEach((row, i) => row.classList.toggle("current", app.round.classes[i].value === app.value));
  [...get("tools").children].forEach((b) => b.classList.toggle("current", b.dataset.tool === app.tool));
  get("undo").disabled = !p.can_undo || p.done;
  get("redo").disabled = !p.can_redo || p.done;
  get("done").replaceChildren(p.done ? "Reopen this plane " : "Mark plane done ", element("kbd", { textContent: "D" }));
  get("done").className = `wide ${p.done ? "" : "done"}`;
  get("not-here").disabled = p.done;
  const done = app.scan.planes.filter((q) => q.done).length;
  get("finish").disabled = done === 0;
  get("finish").classList.toggle("primary", done === app.scan.planes.length);
  get("finish-note").textContent = `${done} of ${app.scan.planes.length} planes done. Unpainted counts as background only on a plane marked done.`;
  get("size-row").hidden = !["brush", "eraser"].includes(app.tool);
  get("size").value = app.size;
  get("size-value").textContent = `${Number((app.size * Math.min(...p.pixel_mm)).toPrecision(2))} mm`;
  get("opacity").value = Math.round(app.opacity * 100);
  get("opacity-value").textContent = `${Math.round(app.opacity * 100)} %`;
  get("channel").value = app.channel;
  const { level, width } = currentWindow();
  get("level").value = Number(level.toPrecision(4));
  get("width").value = Number(width.toPrecision(4));
  get("show-paint").checked = app.showPaint;
  get("show-lines").checked = app.showLines;
  get("show-proposal").checked = app.showProposal;
  get("smooth").checked = app.smooth;
  get("accept-proposal").disabled = !app.showProposal || p.done || app.offset !== 0;
  get("generalist-row").hidden = app.tool !== "generalist";
  showPresets();
  showBadges(p);
  showSaved();
}

function showBadges(p) {
  const away = Math.abs(app.offset), side = app.offset > 0 ? p.forward : "back";
  get("read-only").hidden = app.offset === 0;
  get("read-only").textContent = app.offset
    ? `READ-ONLY  ${away} slice${away > 1 ? "s" : ""} ${app.offset > 0 && side ? `towards ${side}` : app.offset > 0 ? "on" : "back"} (${(away * p.thickness_mm).toFixed(1)} mm)  ·  Esc returns`
    : "";
  get("stage").classList.toggle("read-only", app.offset !== 0);
  get("locked").hidden = !p.done || app.offset !== 0;
  get("locked").textContent = "✓ Done  ·  D reopens it";
}
