// Pictures and paintings as small canvases of one pixel a voxel, made anew only when something changed.

import { app, classOf, currentWindow, pictureOf, shownIndex } from "./state.js";
import { border } from "./raster.js";

export const rgb = (colour) => [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16));

function blank(p) {
  const canvas = document.createElement("canvas");
  canvas.width = p.columns;
  canvas.height = p.rows;
  return canvas;
}

// Window: level and width in grey values become black and white.
export function paintGrey(canvas, pixels, channel, { level, width }) {
  const context = canvas.getContext("2d"), image = context.createImageData(canvas.width, canvas.height);
  const factor = (255 * channel.step) / width, shift = 255 * ((channel.low - level) / width + 0.5);
  for (let i = 0; i < pixels.length; i++) {
    image.data[4 * i] = image.data[4 * i + 1] = image.data[4 * i + 2] = pixels[i] * factor + shift; // clamped by the array
    image.data[4 * i + 3] = 255;
  }
  context.putImageData(image, 0, 0);
}

export function paintMask(canvas, mask, alpha = 255) {
  const context = canvas.getContext("2d"), image = context.createImageData(canvas.width, canvas.height);
  const bytes = new Uint8Array(4 * 256), colours = new Uint32Array(bytes.buffer), pixels = new Uint32Array(image.data.buffer);
  for (const c of app.round.classes) bytes.set([...rgb(c.colour), alpha], 4 * c.value);
  for (let i = 0; i < mask.length; i++) pixels[i] = colours[mask[i]];
  context.putImageData(image, 0, 0);
}

let grey = { key: "", canvas: null };

export function greyLayer(p) {
  const pixels = pictureOf(p, shownIndex());
  if (!pixels) return null;
  const { level, width } = currentWindow();
  const key = [app.scan.identifier, p.axis, shownIndex(), app.channel, level, width].join("/");
  if (grey.key !== key) {
    const canvas = blank(p);
    paintGrey(canvas, pixels, app.scan.channels[app.channel], currentWindow());
    grey = { key, canvas };
  }
  return grey.canvas;
}

const kept = new Map(); // name -> {mask, change, layer}
let change = 0;

// To be called when a mask was changed in place.
export function masksChanged() { change += 1; }

// The filled painting and the border of each class in it.
export function maskLayer(name, p, mask) {
  const old = kept.get(name);
  if (old && old.mask === mask && old.change === change) return old.layer;
  const canvas = blank(p);
  paintMask(canvas, mask);
  const values = [...new Set(mask)].filter((v) => v && classOf(v));
  const layer = { canvas, borders: values.map((v) => ({ colour: classOf(v).colour, path: border(p, mask, v) })) };
  kept.set(name, { mask, change, layer });
  return layer;
}

// The small picture on a plane's card.
export function thumbnail(target, p) {
  const pixels = pictureOf(p, p.index), side = target.width, context = target.getContext("2d");
  context.fillStyle = "#000";
  context.fillRect(0, 0, side, side);
  if (!pixels) return;
  const [h, w] = p.pixel_mm, scale = Math.min(side / (p.columns * w), side / (p.rows * h));
  const size = [p.columns * w * scale, p.rows * h * scale];
  const place = [(side - size[0]) / 2, (side - size[1]) / 2];
  const picture = blank(p), painting = blank(p);
  paintGrey(picture, pixels, app.scan.channels[app.channel], currentWindow());
  context.drawImage(picture, ...place, ...size);
  if (p.mask) {
    paintMask(painting, p.mask);
    context.globalAlpha = 0.6;
    context.drawImage(painting, ...place, ...size);
    context.globalAlpha = 1;
  }
}
