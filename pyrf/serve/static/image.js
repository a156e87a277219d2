// The image that a stream starts from: chosen by the person, made small enough for the server.

const LONGEST_SIDE = 1280; // of an image that is made smaller
const QUALITY = 0.9;

const byId = (id) => document.getElementById(id);

export class StartImage {
  constructor() {
    this.limit = 0; // bytes; 0: the server takes no images
    byId("image").addEventListener("change", () => this.show());
    byId("no-image").addEventListener("click", () => this.clear());
  }

  offer(limit) {
    this.limit = limit;
    byId("image-field").hidden = !limit;
    this.show();
  }

  get file() {
    return (this.limit && byId("image").files[0]) || null;
  }

  clear() {
    byId("image").value = "";
    this.show();
  }

  show() {
    for (const id of ["start-field", "fit-field", "no-image"]) byId(id).hidden = !this.file;
  }

  // What a request says of it.
  async fields() {
    if (!this.file) return {};
    const bytes = this.file.size > this.limit ? await smaller(this.file) : this.file;
    const start = byId("start").value || undefined;
    return { image: await inBase64(bytes), start, fit: byId("fit").value };
  }
}

async function smaller(file) {
  const bitmap = await createImageBitmap(file).catch(() => {
    throw new Error(`${file.name} is no image that this browser can read.`);
  });
  const scale = Math.min(1, LONGEST_SIDE / Math.max(bitmap.width, bitmap.height));
  const [width, height] = [bitmap.width, bitmap.height].map((side) => Math.max(1, Math.round(scale * side)));
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d");
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0, width, height);
  return new Promise((done) => canvas.toBlob(done, "image/jpeg", QUALITY));
}

const inBase64 = (blob) =>
  new Promise((done, failed) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => failed(new Error("The image cannot be read."));
    reader.readAsDataURL(blob);
  });
