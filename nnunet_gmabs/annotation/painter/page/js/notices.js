// What the annotator is told: a banner until it is over, a toast for a moment, a question with two answers.

const get = (id) => document.getElementById(id);
let toastTimer = 0;

export function showBanner(text, action, run) {
  const banner = get("banner");
  if (banner.dataset.text === text) return;
  banner.dataset.text = text;
  const button = document.createElement("button");
  button.textContent = action;
  button.addEventListener("click", run);
  const words = document.createElement("span");
  words.textContent = text;
  banner.replaceChildren(words, button);
  banner.hidden = false;
}

export function hideBanner() {
  get("banner").hidden = true;
  get("banner").dataset.text = "";
}

export function toast(text, kind = "") {
  const box = get("toast");
  box.textContent = text;
  box.className = kind;
  box.hidden = false;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => { box.hidden = true; }, kind === "bad" ? 8000 : 3500);
}

// A promise of true (yes) or false (no, or Esc).
export function question(text, yes, no = "Cancel") {
  const dialog = get("dialog");
  get("dialog-text").textContent = text;
  get("dialog-yes").textContent = yes;
  get("dialog-no").textContent = no;
  get("dialog-no").hidden = !no;
  dialog.returnValue = "";
  get("dialog-yes").onclick = () => dialog.close("yes");
  get("dialog-no").onclick = () => dialog.close("no");
  dialog.showModal();
  return new Promise((resolve) => { dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true }); });
}
