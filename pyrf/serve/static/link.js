// A link that fills in a prompt, a seed, and a model where there are several. They stand in the fragment, which a browser sends to no server.

const SEED = /^\d{1,16}$/;

// Make the page's address a link to what is shown, so that a reloaded page has its prompt. The link.
export function setLink(prompt, seed, model) {
  const url = new URL(location.href);
  url.hash = new URLSearchParams({ prompt, seed, ...(model && { model }) });
  history.replaceState(null, "", url.href);
  return url.href;
}

// What the page's address holds: { prompt, seed, model }, each undefined where it is missing or of no use.
export function readLink() {
  const values = new URLSearchParams(location.hash.slice(1));
  const seed = SEED.test(values.get("seed")) ? Number(values.get("seed")) : NaN;
  return {
    prompt: values.get("prompt")?.trim() || undefined,
    seed: Number.isSafeInteger(seed) ? seed : undefined,
    model: values.get("model") || undefined,
  };
}
