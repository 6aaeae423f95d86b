// Strokes that the server has not confirmed yet, kept in the browser so that a reload or a dead server loses nothing.

import { app } from "./state.js";

const keyOf = (p) =>
  ["gmabs", app.round.dataset, app.round.round, app.round.created, app.round.annotator, app.scan.identifier, p.axis, p.index].join("/");

// Run lengths as text: value, count, value, count, ...
export function pack(mask) {
  const runs = [];
  for (let i = 0, start = 0; i <= mask.length; i++) {
    if (i === mask.length || mask[i] !== mask[start]) { if (i > start) runs.push(mask[start], i - start); start = i; }
  }
  return runs.join(",");
}

export function unpack(text, length) {
  const mask = new Uint8Array(length), numbers = text.split(",").map(Number);
  let place = 0;
  for (let i = 0; i + 1 < numbers.length; i += 2) { mask.fill(numbers[i], place, place + numbers[i + 1]); place += numbers[i + 1]; }
  return mask;
}

// pending = how many saves are on their way from `base` on; the mask is the newest of them.
export function remember(p, mask, pending) {
  try {
    localStorage.setItem(keyOf(p), JSON.stringify({ base: p.version, pending, mask: pack(mask) }));
  } catch { /* the browser keeps nothing: the server still gets it */ }
}

export function forget(p) {
  try { localStorage.removeItem(keyOf(p)); } catch { /* as above */ }
}

// What is left of an earlier page, or null: {mask, expected: the server stands where that page knew it to be}.
export function recall(p) {
  try {
    const left = JSON.parse(localStorage.getItem(keyOf(p)));
    if (!left) return null;
    return {
      mask: unpack(left.mask, p.rows * p.columns),
      expected: p.version >= left.base && p.version <= left.base + left.pending,
    };
  } catch {
    return null;
  }
}
