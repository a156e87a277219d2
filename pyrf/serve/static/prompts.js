// Prompts to begin with: the card's gallery, or examples for a model that offers nothing of its own.

const byId = (id) => document.getElementById(id);

const EXAMPLES = [
  "A red fox trots through fresh snow at dawn, its breath visible, the camera following from the side.",
  "Waves roll onto a black sand beach under a stormy sky, seen from a low drone flight.",
  "A baker kneads dough in a sunlit kitchen, flour drifting in the air, close-up.",
  "A tram passes down a rainy city street at night, neon lights mirrored on the wet road.",
];

// Show what a model offers. play(prompt, seed) is called by a press on the gallery, use(prompt) on an example.
// Returns the prompt that the page begins with and its seed, which may be undefined.
export function showPrompts({ choices = {}, gallery = [] }, play, use) {
  const groups = Object.values(choices);
  const examples = gallery.length || groups.length ? [] : EXAMPLES;
  fill("gallery", gallery.map((shown) => galleryItem(shown, play)));
  fill("examples", examples.map((prompt) => item([prompt], () => use(prompt))));
  return gallery[0] ?? { prompt: examples[0] ?? groups.map(([phrase]) => phrase).join(", ") };
}

function fill(id, items) {
  byId(id).replaceChildren(...items);
  byId(id).parentElement.hidden = !items.length;
}

function galleryItem({ prompt, seed }, play) {
  const note = Object.assign(document.createElement("small"), { textContent: `seed ${seed}` });
  return item([prompt, note], () => play(prompt, seed));
}

function item(content, onclick) {
  const button = Object.assign(document.createElement("button"), { type: "button", onclick });
  button.append(...content);
  const entry = document.createElement("li");
  entry.append(button);
  return entry;
}
