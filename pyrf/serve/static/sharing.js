// What is copied for others: a link to a prompt, and the addresses at which they watch the stream that runs.

import { showCopied } from "./view.js";

const COPIED_MS = 4_000;
const ENDS = { whep: "whep", hls: "hls/live.m3u8", jpeg: "frames.mjpeg" };

export async function copyLink(link) {
  showCopied((await copy(link)) ? "Link copied" : "Copy this page's address");
  setTimeout(showCopied, COPIED_MS, "");
}

// For a kind of player; `watch` is the path that the server gave when the session began. Whoever has a stream's
// address may watch it.
export async function copyAddress({ watch }, kind) {
  const link = new URL(`${watch.replace(/^\//, "")}/${ENDS[kind]}`, document.baseURI).href;
  if (!(await copy(link))) return window.prompt("Whoever has this address may watch", link);
  showCopied("Address copied: whoever has it may watch");
  return setTimeout(showCopied, COPIED_MS, "");
}

const copy = async (text) => navigator.clipboard?.writeText(text).then(() => true, () => false);
