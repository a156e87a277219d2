// How the server's streams are made, in a line for people; the server's start decides it.

const counted = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;

// Older servers do not say.
export function showStreams(place, stream) {
  place.parentElement.hidden = !stream;
  if (!stream) return;
  const { preset, latent_frames: frames, window_frames: seen, sink_frames: sink } = stream;
  const { steps, first_chunk_steps: first, sampler } = stream;
  const calls = counted(steps.length, "step") + (first ? `, at first ${first.length}` : "");
  const name = preset ? `${preset}: ` : "";
  place.textContent = `${name}${counted(frames, "latent frame")} a chunk, ${seen} seen, sink ${sink}, ${calls}, ${sampler}`;
}
