// The page: what the keys and buttons do.

import { Adapters } from "./adapters.js";
import { modelInfo, sessionInfo } from "./api.js";
import { Blend } from "./blend.js";
import { Change } from "./change.js";
import { Camera } from "./camera.js";
import { Chips } from "./chips.js";
import { Display } from "./display.js";
import { Figures } from "./figures.js";
import { StartImage } from "./image.js";
import { forget, keep, kept } from "./kept.js";
import { listenToKeys } from "./keys.js";
import { readLink, setLink } from "./link.js";
import { Models } from "./models.js";
import { showPrompts } from "./prompts.js";
import { Recorder } from "./recorder.js";
import { copyAddress, copyLink } from "./sharing.js";
import { sessionFor } from "./starting.js";
import { Stream } from "./stream.js";
import { overWebRtcFirst, overWebSocket } from "./transports.js";
import { offerWebRtc, showExpanded, showModel, showNotices, showProblem, showState } from "./view.js";

const RESUMED_MS = 3_000;
const SEEDS = 100_000; // that a surprise draws from: few digits, for people

const byId = (id) => document.getElementById(id);
const figures = new Figures();
const display = new Display((header) => figures.chunk(header), picture);
const recorder = new Recorder(toRecord);
const chips = new Chips(changeLive);
const adapters = new Adapters((strengths) => connected && setAdapters(strengths));
const blend = new Blend(changeLive);
const asked = new Change();
const startImage = new StartImage();
const models = new Models(chooseModel);
let stream = null;
const camera = new Camera({
  send: (message) => stream?.send(message),
  sendFrame: (blob) => stream?.sendFrame(blob),
  useTrack: (track) => stream?.useTrack(track) ?? false,
  problem: showProblem,
});
let loads = 0; // counts what was asked of models, so that the last one counts
let offered = ""; // the prompt that the page itself wrote
let attempt = 0; // counts starts, so that one that was overtaken stops trying
let serverToken = null;
let fps = 16;
let iceServers = [];
let connected = false;
let unsent = false; // the prompt was changed while nothing could carry it
let resuming = false;
let paused = false;

// Starting

// isChoice: whether somebody has chosen another model, and no link is to be followed.
async function load(isChoice = false) {
  const before = attempt;
  const current = ++loads;
  const isOvertaken = () => attempt !== before; // somebody asked for a stream meanwhile
  try {
    const model = await modelInfo(serverToken, models.chosen);
    if (current !== loads) return undefined;
    models.show(model);
    showModel(model);
    fps = display.fps = model.fps;
    iceServers = model.ice_servers;
    adapters.show(model);
    offerWebRtc(model.webrtc);
    camera.limit(model.fps, model.limits);
    startImage.offer(model.limits.max_image_bytes);
    offer(model, isChoice);
  } catch (error) {
    if (current !== loads) return undefined;
    if (error.status === 401) {
      if (serverToken) showProblem(error.message);
      return showState("locked");
    }
    if (error.code === "bad_model") {
      models.chosen = undefined;
      showProblem(error.message);
      return load(isChoice);
    }
    if (error.code === "loading") {
      showState("loading", `${Math.round(100 * error.progress)} %`);
      setTimeout(load, 1000 * error.retryAfter);
      return undefined;
    }
    return showState("ended", "the server cannot be reached");
  }
  if (isOvertaken()) return undefined;
  showState("idle");
  return resumeKept(isOvertaken);
}

// Fill in what to begin with; nothing starts before somebody asks for it.
function offer(model, isChoice) {
  chips.show(model.choices ?? {});
  const { prompt, seed } = showPrompts(model, play, (example) => {
    chips.write(example);
    byId("form").requestSubmit();
  });
  if ([offered, ""].includes(byId("prompt").value)) {
    chips.write(prompt);
    offered = prompt;
    byId("seed").value = seed ?? 0;
  }
  if (isChoice) return;
  followLink();
  byId("prompt").select();
}

function chooseModel() {
  showProblem("");
  showNotices();
  showExpanded("");
  return load(true);
}

function followLink() {
  const { prompt, seed } = readLink();
  if (prompt) chips.write(prompt.slice(0, byId("prompt").maxLength));
  if (seed !== undefined) byId("seed").value = seed;
}

function followAddress() {
  if (!isWanted() && models.choose(readLink().model)) return load(); // which follows the rest
  return followLink();
}

async function resumeKept(isOvertaken) {
  const session = kept();
  if (!session) return;
  const info = await sessionInfo(session).catch(() => null);
  if (isOvertaken()) return;
  if (!info) return forget();
  if (models.choose(info.model)) return load(); // which comes here again
  resuming = true;
  attach({ ...info, token: session.token, watch: session.watch });
}

async function start() {
  const current = ++attempt;
  const isCurrent = () => current === attempt;
  leave();
  const request = { prompt: blend.prompt(), seed: byId("seed").valueAsNumber || 0, model: models.chosen };
  showState("connecting"); // at once: what is changed from here on is sent to the stream
  try {
    Object.assign(request, await startImage.fields());
  } catch (error) {
    if (!isCurrent()) return;
    showState("idle");
    return showProblem(error.message);
  }
  const session = await sessionFor(serverToken, request, isCurrent, () => figures.begin(performance.now()));
  if (!isCurrent()) return;
  if (!session) {
    attempt += 1;
    return;
  }
  resuming = false;
  showNotices(session.warnings);
  showExpanded(session.expanded);
  attach(session);
  link(request.seed);
}

function attach(session) {
  keep(session);
  byId("watch-field").hidden = !session.watch;
  figures.session(session);
  asked.clear();
  display.reset();
  display.paused = paused = false;
  const webRtc = byId("transport").value === "webrtc";
  display.isVideo = webRtc;
  showState("connecting");
  stream = new Stream(session, webRtc ? overWebRtcFirst(() => iceServers, useWebSocket) : overWebSocket, {
    attached,
    message,
    frame: (header, blob) => display.push(header, blob),
    media: (media) => display.play(media),
    lost,
    ended: over,
  });
}

const link = (seed) => setLink(byId("prompt").value.trim(), seed, models.chosen);

// No video came over WebRTC: from now on it comes over the WebSocket.
function useWebSocket(session) {
  if (stream?.session !== session) return;
  stream.attach = overWebSocket;
  byId("transport").value = "websocket";
  display.isVideo = false;
  showProblem("No video came over WebRTC. It comes over the WebSocket instead.");
}

// Leave the session that there may be, for a new one.
function leave() {
  recorder.stop();
  connected = unsent = false;
  const left = stream;
  stream = null; // so that its end is not this page's
  left?.stop();
}

// What the stream says and shows

function lost() {
  connected = false;
  showState("lost");
}

function attached(session, resumed) {
  connected = true;
  resuming ||= resumed;
  setPaused(session.state === "paused");
  camera.attached();
  if (unsent) change();
  setAdapters(adapters.chosen);
}

function message(reply) {
  if (reply.type === "prompt") {
    showNotices(reply.warnings);
    showExpanded(reply.expanded);
    asked.taken(reply);
    figures.promptTaken(reply, performance.now());
  } else if (reply.type === "adapters") adapters.told(reply.strengths);
  else if (reply.type === "source") camera.taken(reply);
  else if (reply.type === "state") setPaused(reply.state === "paused");
  else if (reply.type === "error") showProblem(reply.error.message);
  else if (reply.type === "chunk") display.chunk(reply);
}

function over(why) {
  if (!stream) return;
  recorder.stop();
  stream = null;
  forget();
  byId("watch-field").hidden = true;
  showState("ended", why);
}

function picture(header) {
  figures.frame(header, performance.now());
  asked.frame(header);
  byId("canvas").dataset.frame = header.frame;
  byId("canvas").dataset.prompt = header.prompt_id;
  if (!stream || !connected || paused || ["live", "resumed"].includes(document.body.dataset.state)) return;
  showState(resuming ? "resumed" : "live");
  if (resuming) setTimeout(() => document.body.dataset.state === "resumed" && showState("live"), RESUMED_MS);
  resuming = false;
}

// Controls

function submit(event) {
  event.preventDefault();
  showProblem("");
  if (!byId("locked").hidden) {
    serverToken = byId("token").value;
    return load();
  }
  if (!blend.prompt()) return showProblem("Write what you want to see.");
  return stream ? change() : start();
}

// Send the prompt to the stream, now or as soon as there is a connection.
function change() {
  unsent = !connected;
  if (unsent) return;
  const ref = figures.promptSent(performance.now());
  stream.send({ type: "prompt", prompt: blend.prompt(), over: blend.over(), ref });
  link(stream.session.seed);
}

function setAdapters(strengths) {
  if (Object.keys(strengths).length) stream.send({ type: "adapters", strengths });
}

const isWanted = () => stream !== null || ["connecting", "full", "lost"].includes(document.body.dataset.state);

// A chip was pressed: a stream that runs, or is on its way, follows at once.
function changeLive() {
  showProblem("");
  if (isWanted() && blend.prompt()) change();
}

// A stream has one seed: while it runs, a surprise changes its prompt alone.
function surprise() {
  showProblem("");
  chips.surprise();
  if (isWanted()) return change();
  byId("seed").value = Math.floor(Math.random() * SEEDS);
  return start();
}

function play(prompt, seed) {
  showProblem("");
  chips.write(prompt);
  byId("seed").value = seed;
  return start();
}

const share = () => copyLink(link(byId("seed").valueAsNumber || 0));

function copyForWatchers() {
  const kind = byId("watch").value;
  byId("watch").value = "";
  return copyAddress(kept(), kind);
}

function setPaused(value) {
  paused = display.paused = value;
  if (value) showState("paused");
  else if (document.body.dataset.state === "paused") showState("live");
}

function togglePause() {
  if (!stream || byId("pause").disabled) return;
  stream.send({ type: paused ? "resume" : "pause" });
  setPaused(!paused);
}

function stop() {
  attempt += 1;
  if (stream) stream.stop();
  else showState("idle");
}

function toRecord() {
  const { width, height } = byId("canvas");
  const name = `pyrf-seed-${byId("seed-shown").textContent}-${new Date().toISOString().replace(/[:.]/g, "-")}`;
  return { media: display.media, width, height, fps, name };
}

byId("form").addEventListener("submit", submit);
byId("surprise").addEventListener("click", surprise);
byId("share").addEventListener("click", share);
byId("watch").addEventListener("change", copyForWatchers);
byId("pause").addEventListener("click", togglePause);
byId("stop").addEventListener("click", stop);
byId("restart").addEventListener("click", start);
listenToKeys(togglePause);
addEventListener("hashchange", followAddress);

load();
