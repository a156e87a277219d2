// What the page says: its state, its buttons, what the model is and knows.

import { showStreams } from "./streams.js";

const byId = (id) => document.getElementById(id);

const STATES = {
  idle: "Not started",
  locked: "Needs the server's token, or a key",
  loading: "The model is being loaded",
  connecting: "Connecting",
  live: "Live",
  paused: "Paused",
  full: "The server is full",
  lost: "Connection lost, trying again",
  resumed: "Resumed",
  ended: "Ended",
};
const SMALL = 128; // pixels; frames that are no wider are scaled pixel by pixel, without blur
const WITH_SESSION = new Set(["live", "paused", "lost", "resumed"]);

export function showState(state, detail = "") {
  document.body.dataset.state = state;
  byId("state").textContent = detail ? `${STATES[state]}: ${detail}` : STATES[state];
  const active = WITH_SESSION.has(state);
  byId("send").textContent = active ? "Change" : "Start";
  byId("send").disabled = ["connecting", "loading"].includes(state);
  for (const id of ["pause", "record", "restart"]) byId(id).disabled = !active;
  byId("pause").disabled = !active || state === "lost";
  byId("stop").disabled = !active && !["connecting", "full"].includes(state);
  byId("model").disabled = active || ["connecting", "full"].includes(state);
  byId("pause").textContent = state === "paused" ? "Resume" : "Pause";
  byId("locked").hidden = state !== "locked";
  if (state === "locked") byId("token").focus();
}

// Over the video, so that nothing moves.
export const showCopied = (text) => (byId("copied").textContent = text);

export const showProblem = (text) => (byId("problem").textContent = text);

// What the model has not learned of the prompt: never a refusal.
export function showNotices(sentences = []) {
  byId("notices").replaceChildren(...sentences.map(asItem));
  byId("notices").hidden = !sentences.length;
}

// What a language model has made of the prompt, if the server has one.
export function showExpanded(text) {
  byId("expanded").textContent = text ? `Shown as: ${text}` : "";
  byId("expanded").hidden = !text;
}

function asItem(text) {
  return Object.assign(document.createElement("li"), { textContent: text });
}

function showKnown({ vocabulary = [], model_limits: limits = [] }) {
  byId("knows").hidden = !vocabulary.length && !limits.length;
  byId("model-limits").replaceChildren(...limits.map(asItem));
  byId("vocabulary").textContent = vocabulary.join(" ");
  byId("vocabulary").parentElement.hidden = !vocabulary.length;
}

export function showModel({ model, backend, device, dtype, precision, width, height, fps, limits, stream, ...card }) {
  showKnown(card);
  showStreams(byId("streams"), stream);
  const bits = precision ? `${dtype} with ${precision}` : dtype;
  byId("served").textContent = `${model} · ${backend} on ${device}, ${bits} · ${width} × ${height} at ${fps} fps`;
  byId("prompt").maxLength = byId("second").maxLength = limits.max_prompt_chars;
  Object.assign(byId("canvas"), { width, height });
  byId("stage").style.setProperty("--ratio", width / height);
  byId("stage").classList.toggle("small", width <= SMALL);
}

// Older servers do not say; they have WebRTC.
export function offerWebRtc(has = true) {
  byId("transport").querySelector("[value=webrtc]").disabled = !has;
  byId("transport").closest(".field").hidden = !has;
  byId("watch").querySelector("[value=whep]").disabled = !has;
  if (!has) byId("transport").value = "websocket";
}

// Count down without telling screen readers every second.
export function countDown(seconds, isCurrent) {
  return new Promise((resolve) => {
    const until = performance.now() + 1000 * seconds;
    const label = Object.assign(document.createElement("span"), { ariaHidden: "true", id: "countdown" });
    byId("state").append(label);
    const step = () => {
      const left = Math.ceil((until - performance.now()) / 1000);
      if (!isCurrent() || left <= 0) return resolve();
      label.textContent = `, next try in ${left} s`;
      return setTimeout(step, 250);
    };
    step();
  });
}
