// Active seconds: time counts while somebody moves, paints or types, not while the page just lies there.

import { api, Refusal } from "./api.js";
import { toast } from "./notices.js";
import { app } from "./state.js";

const IDLE_MS = 20000;
const SEND_EVERY_S = 10;
let lastInput = 0;
let unsent = 0;

function showClock() {
  const seconds = Math.round(app.scan.seconds + unsent);
  document.getElementById("clock").textContent = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
}

export async function sendTime(leaving = false) {
  const scan = app.scan, seconds = unsent;
  if (!scan || seconds < 1) return;
  unsent = 0;
  try {
    const total = (await api.time(scan.identifier, seconds, leaving)).seconds;
    if (app.scan === scan) scan.seconds = total;
  } catch (error) {
    if (error instanceof Refusal) toast(error.message, "bad"); // somebody else took the scan
    else unsent += seconds;
  }
}

function tick() {
  if (!app.scan) { unsent = 0; return; }
  if (document.visibilityState === "visible" && Date.now() - lastInput < IDLE_MS) unsent += 1;
  showClock();
  if (unsent >= SEND_EVERY_S) sendTime();
}

export function startActivity() {
  for (const event of ["pointermove", "pointerdown", "keydown", "wheel"]) {
    document.addEventListener(event, () => { lastInput = Date.now(); }, { passive: true, capture: true });
  }
  setInterval(tick, 1000);
  window.addEventListener("pagehide", () => sendTime(true));
}
