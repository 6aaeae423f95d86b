// One drawing of the stage: picture, painting, crossing planes, what is being drawn, letters.

import { app, brushMm, classOf, currentWindow, isLocked, plane, shownIndex } from "./state.js";
import { greyLayer, maskLayer } from "./layers.js";
import { disagreements } from "./raster.js";
import { pictureBox, pixelSize, toCanvas, zoomFactor } from "./viewport.js";

const canvas = document.getElementById("canvas");
const context = canvas.getContext("2d");
let asked = false;

// Draw before the next frame, however often it is asked for.
export function redraw() {
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => { asked = false; if (app.scan) draw(); });
}

function draw() {
  const ratio = canvas.width / canvas.clientWidth;
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.fillStyle = "#050607";
  context.fillRect(0, 0, canvas.clientWidth, canvas.clientHeight);
  const p = plane(), box = pictureBox(), layer = greyLayer(p);
  if (layer) place(layer, box, app.smooth);
  if (app.offset === 0 && p.mask) {
    if (app.showProposal && p.proposal) drawBorders(maskLayer("proposal", p, p.proposal), box, [5, 4], 1.6);
    if (app.showPaint) drawPainting(p, box);
    if (app.showLines) drawCrossings(p, box);
    drawWork(p, box);
  }
  drawFrame(p, box);
  drawTexts(p, box);
  if (app.hover && app.offset === 0) drawCursor(p);
}

function place(layer, box, smooth) {
  context.imageSmoothingEnabled = smooth;
  context.imageSmoothingQuality = "high";
  context.drawImage(layer, box.left, box.top, box.width, box.height);
}

function drawPainting(p, box) {
  const layer = maskLayer("painting", p, p.mask);
  context.globalAlpha = app.opacity;
  place(layer.canvas, box, false);
  context.globalAlpha = 1;
  drawBorders(layer, box, [], 1.6);
}

function drawBorders(layer, box, dash, thickness) {
  const { width, height } = pixelSize();
  for (const { colour, path } of layer.borders) {
    const onCanvas = new Path2D();
    onCanvas.addPath(path, new DOMMatrix([width, 0, 0, height, box.left, box.top]));
    context.setLineDash(dash);
    context.lineWidth = thickness;
    context.strokeStyle = colour;
    context.stroke(onCanvas);
  }
  context.setLineDash([]);
}

// Each crossing plane is one row or column of pixels: its edges as thin lines, what is painted on it inside.
function drawCrossings(p, box) {
  const { width, height } = pixelSize();
  for (const line of p.lines) {
    const row = line.along === "row", at = row ? box.top + line.at * height : box.left + line.at * width;
    const size = row ? height : width;
    context.strokeStyle = "#9fb4c9a0";
    context.lineWidth = 1;
    context.setLineDash([2, 4]);
    context.beginPath();
    for (const edge of size >= 6 ? [at, at + size] : [at + size / 2]) {
      if (row) { context.moveTo(box.left, edge); context.lineTo(box.left + box.width, edge); }
      else { context.moveTo(edge, box.top); context.lineTo(edge, box.top + box.height); }
    }
    context.stroke();
    context.setLineDash([]);
  }
  drawCrossingValues(p, box, width, height);
}

function drawCrossingValues(p, box, width, height) {
  const at = (i) => [box.left + (i % p.columns) * width, box.top + Math.floor(i / p.columns) * height];
  p.crossings?.forEach((value, i) => {
    const found = value && value !== 255 && classOf(value);
    if (!found) return;
    const [x, y] = at(i);
    context.fillStyle = found.colour;
    context.globalAlpha = 0.85;
    const w = Math.max(2, width * 0.34), h = Math.max(2, height * 0.34);
    context.fillRect(x + (width - w) / 2, y + (height - h) / 2, w, h);
  });
  context.globalAlpha = 1;
  for (const i of p.crossings ? disagreements(p) : []) {
    const [x, y] = at(i), w = Math.max(7, width), h = Math.max(7, height);
    const left = x + (width - w) / 2, top = y + (height - h) / 2;
    context.lineWidth = 3.5;
    context.strokeStyle = "#000";
    context.strokeRect(left, top, w, h);
    context.lineWidth = 1.8;
    context.strokeStyle = "#ff4040";
    context.strokeRect(left, top, w, h);
  }
}

// The outline being drawn, and box, clicks and answer of the generalist.
function drawWork(p, box) {
  context.lineWidth = 1.5;
  if (app.lasso?.length) {
    context.strokeStyle = app.lasso.erase ? "#fff" : classOf(app.value).colour;
    context.beginPath();
    app.lasso.forEach((point) => { const { x, y } = toCanvas(point.x, point.y); context.lineTo(x, y); });
    context.stroke();
  }
  if (!app.prompt) return;
  if (app.prompt.mask) {
    const layer = maskLayer("answer", p, app.prompt.mask);
    context.globalAlpha = 0.45;
    place(layer.canvas, box, false);
    context.globalAlpha = 1;
    drawBorders({ borders: layer.borders.map((b) => ({ ...b, colour: "#ffffff" })) }, box, [4, 3], 2);
  }
  if (app.prompt.box) {
    const [x0, y0, x1, y1] = app.prompt.box, a = toCanvas(x0, y0), b = toCanvas(x1, y1);
    context.strokeStyle = "#ffffff";
    context.setLineDash([6, 4]);
    context.strokeRect(a.x, a.y, b.x - a.x, b.y - a.y);
    context.setLineDash([]);
  }
  app.prompt.points.forEach((point) => {
    const { x, y } = toCanvas(point.x, point.y);
    context.fillStyle = point.inside ? "#37d67a" : "#ff5a5a";
    context.strokeStyle = "#000";
    context.beginPath();
    context.arc(x, y, 5, 0, 2 * Math.PI);
    context.fill();
    context.stroke();
  });
}

function drawFrame(p, box) {
  context.strokeStyle = app.offset ? "#ffb547" : "#2a323c";
  context.lineWidth = 1;
  context.strokeRect(box.left - 0.5, box.top - 0.5, box.width + 1, box.height + 1);
  for (const line of app.showLines && app.offset === 0 ? p.lines : []) {
    const other = app.scan.planes.findIndex((q) => q.axis === line.axis && q.index === line.index);
    const { width, height } = pixelSize(), row = line.along === "row";
    const x = row ? box.left + box.width - 9 : box.left + (line.at + 0.5) * width;
    const y = row ? box.top + (line.at + 0.5) * height : box.top + box.height - 10;
    label(String(other + 1), x, y, "#c9d6e4", 11, "center");
  }
}

function drawTexts(p, box) {
  const { clientWidth: width, clientHeight: height } = canvas;
  const [left, right, top, bottom] = p.edges;
  const clampX = (x) => Math.min(Math.max(x, 16), width - 16), clampY = (y) => Math.min(Math.max(y, 16), height - 16);
  label(left, clampX(box.left - 18), clampY(box.top + box.height / 2), "#ffd479", 17, "center");
  label(right, clampX(box.left + box.width + 18), clampY(box.top + box.height / 2), "#ffd479", 17, "center");
  label(top, clampX(box.left + box.width / 2), clampY(box.top - 17), "#ffd479", 17, "center");
  label(bottom, clampX(box.left + box.width / 2), clampY(box.top + box.height + 18), "#ffd479", 17, "center");
  const { level, width: windowWidth } = currentWindow();
  label(`${p.name}  slice ${shownIndex() + 1} / ${p.count}`, 12, height - 32, "#aeb9c6", 13, "left");
  label(`W ${round(windowWidth)}  L ${round(level)}`, 12, height - 14, "#aeb9c6", 13, "left");
  drawScale(width, height);
}

const round = (value) => (Math.abs(value) >= 100 ? value.toFixed(0) : value.toPrecision(3));

// A bar of 1, 2 or 5 times a power of ten, at most 140 units long.
function drawScale(width, height) {
  const most = 140 / zoomFactor(), power = 10 ** Math.floor(Math.log10(most));
  const mm = [5, 2, 1].map((f) => f * power).find((length) => length <= most);
  const x = width - 14, length = mm * zoomFactor();
  context.strokeStyle = "#aeb9c6";
  context.lineWidth = 2;
  context.beginPath();
  context.moveTo(x - length, height - 18);
  context.lineTo(x - length, height - 12);
  context.lineTo(x, height - 12);
  context.lineTo(x, height - 18);
  context.stroke();
  label(mm >= 10 ? `${mm / 10} cm` : `${Number(mm.toPrecision(1))} mm`, x - length / 2, height - 26, "#aeb9c6", 12, "center");
}

function label(text, x, y, colour, size, align) {
  context.font = `600 ${size}px system-ui, sans-serif`;
  context.textAlign = align;
  context.textBaseline = "middle";
  context.lineWidth = 3;
  context.strokeStyle = "#000c";
  context.strokeText(text, x, y);
  context.fillStyle = colour;
  context.fillText(text, x, y);
}

function drawCursor(p) {
  const { x, y } = toCanvas(app.hover.x, app.hover.y);
  const round = (app.tool === "brush" || app.tool === "eraser") && !isLocked();
  context.beginPath();
  if (round) {
    const radius = Math.max(2.5, (brushMm() / 2) * zoomFactor());
    context.arc(x, y, radius, 0, 2 * Math.PI);
  } else {
    context.moveTo(x - 9, y); context.lineTo(x + 9, y); context.moveTo(x, y - 9); context.lineTo(x, y + 9);
  }
  context.lineWidth = 3;
  context.strokeStyle = "#000b";
  context.stroke();
  context.lineWidth = 1.4;
  context.strokeStyle = isLocked() ? "#9aa5b1" : app.tool === "eraser" ? "#ffffff" : classOf(app.value).colour;
  context.stroke();
}
