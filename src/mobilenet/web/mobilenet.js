// A classifier in the browser (or in node): the engine compiled to WebAssembly, with a model file.
//
//   import { load } from "./mobilenet.js";
//   const model = await load();
//   const predictions = model.predict(await pixels(file));   // [{ label, score }, ...]
//
// The resize and the normalisation are the engine's own, those of model.json, in WebAssembly too.

const ALIGN = 64; // of a model file in memory
const FLOAT = 4; // bytes

// The files of the folder that this module lies in.
async function fetched(name) {
  const answer = await fetch(new URL(name, import.meta.url));
  if (!answer.ok) throw new Error(`${name}: ${answer.status} ${answer.statusText}`);
  return answer.arrayBuffer();
}

// `read` gives the bytes of a file of the folder by its name.
export async function load(read = fetched) {
  const contract = JSON.parse(new TextDecoder().decode(await read("model.json")));
  const [engine, model] = await Promise.all([
    read("mobilenet.wasm"),
    read(contract.artifact.file),
  ]);
  return open(engine, model, contract);
}

// The same of a compiled engine, a model file and its model.json, which prepared images need not.
export async function open(engine, model, contract = {}) {
  return new Classifier(await start(engine), new Uint8Array(model), contract);
}

// The engine's functions. It writes nothing and opens nothing: what it would ask of a system is
// answered with nothing, but the time.
async function start(bytes) {
  const module = await WebAssembly.compile(bytes);
  const imports = {};
  for (const wanted of WebAssembly.Module.imports(module)) {
    imports[wanted.module] ??= {};
    imports[wanted.module][wanted.name] = () => 0;
  }
  let memory = null;
  Object.assign(imports.wasi_snapshot_preview1 ?? {}, {
    proc_exit: (code) => {
      throw new Error(`the engine stopped (${code}): out of memory?`);
    },
    clock_time_get: (_, __, at) => {
      const now = BigInt(Math.round(performance.now() * 1e6));
      new DataView(memory.buffer).setBigUint64(at, now, true);
      return 0;
    },
    environ_sizes_get: (count, size) => {
      new DataView(memory.buffer).setUint32(count, 0, true);
      new DataView(memory.buffer).setUint32(size, 0, true);
      return 0;
    },
  });
  const { exports } = await WebAssembly.instantiate(module, imports);
  memory = exports.memory;
  exports._initialize();
  return exports;
}

export class Classifier {
  #engine;
  #plan;
  #places; // of the image, the logits, and the pointer to the logits
  #picture = { at: 0, bytes: 0 };

  constructor(engine, model, contract) {
    this.#engine = engine;
    this.contract = contract;
    const place = engine.malloc(model.length + ALIGN);
    const aligned = Math.ceil(place / ALIGN) * ALIGN;
    this.#bytes(aligned, model.length).set(model);
    const [slot, shape] = [engine.malloc(FLOAT), engine.malloc(4 * FLOAT)];
    this.#check(engine.mobilenet_load_memory(aligned, model.length, slot));
    const loaded = this.#word(slot);
    this.size = engine.mobilenet_height(loaded); // pixels of a side
    this.precision = this.#text(engine.mobilenet_precision(loaded));
    this.#check(engine.mobilenet_plan(loaded, 0, slot));
    this.#plan = this.#word(slot);
    engine.mobilenet_output_at(shape, this.#plan, 0); // name, channels, height, width
    const classes = this.#word(shape + FLOAT);
    this.labels = contract.labels ?? Array.from({ length: classes }, (_, index) => `${index}`);
    if (classes !== this.labels.length) throw new Error("model.json is not this model's");
    const image = engine.malloc(3 * this.size * this.size * FLOAT);
    const logits = engine.malloc(classes * FLOAT);
    new DataView(engine.memory.buffer).setUint32(slot, logits, true);
    this.#places = { image, logits, outputs: slot };
  }

  get instructionSet() {
    return this.#text(this.#engine.mobilenet_isa(this.#plan));
  }

  // The input of the network, float32 (3, size, size), of a picture { data, width, height } whose
  // data are RGB or RGBA bytes, rows from the top.
  prepare(picture) {
    const { data, width, height } = cropped(withoutAlpha(picture), this.contract.preprocess);
    if (this.#picture.bytes < data.length) {
      this.#engine.free(this.#picture.at);
      this.#picture = { at: this.#engine.malloc(data.length), bytes: data.length };
    }
    this.#bytes(this.#picture.at, data.length).set(data);
    const { image } = this.#places;
    const { at } = this.#picture;
    this.#check(this.#engine.mobilenet_prepare(this.#plan, at, height, width, image));
    return this.#floats(image, 3 * this.size * this.size).slice();
  }

  // Logits, float32 (classes), of an input as `prepare` gives it.
  run(input) {
    const { image, logits, outputs } = this.#places;
    this.#floats(image, 3 * this.size * this.size).set(input);
    this.#check(this.#engine.mobilenet_run(this.#plan, image, 1, outputs));
    return this.#floats(logits, this.labels.length).slice();
  }

  // The likeliest classes of a picture, the best first.
  predict(picture, top = 5) {
    const logits = this.run(this.prepare(picture));
    const most = logits.reduce((a, b) => Math.max(a, b), -Infinity);
    const scores = Array.from(logits, (logit) => Math.exp(logit - most));
    const sum = scores.reduce((a, b) => a + b, 0);
    return scores
      .map((score, index) => ({ label: this.labels[index], score: score / sum }))
      .sort((a, b) => b.score - a.score)
      .slice(0, top);
  }

  #check(status) {
    if (status !== 0) throw new Error(this.#text(this.#engine.mobilenet_error()));
  }

  #word(at) {
    return new DataView(this.#engine.memory.buffer).getUint32(at, true);
  }

  // Views of the memory as it is now: it moves when it grows.
  #bytes(at, count) {
    if (at === 0) throw new Error("out of memory");
    return new Uint8Array(this.#engine.memory.buffer, at, count);
  }

  #floats(at, count) {
    return new Float32Array(this.#engine.memory.buffer, at, count);
  }

  #text(at) {
    const rest = new Uint8Array(this.#engine.memory.buffer, at);
    return new TextDecoder().decode(rest.slice(0, rest.indexOf(0)));
  }
}

function withoutAlpha({ data, width, height }) {
  const pixels = width * height;
  if (data.length === 3 * pixels) return { data, width, height };
  const rgb = new Uint8Array(3 * pixels);
  for (let from = 0, to = 0; to < rgb.length; from += 4, to += 3) {
    rgb[to] = data[from];
    rgb[to + 1] = data[from + 1];
    rgb[to + 2] = data[from + 2];
  }
  return { data: rgb, width, height };
}

// The central part of a picture, where the contract has it cut out before it is resized.
function cropped({ data, width, height }, rules) {
  if (rules.resize_mode !== "crop_fraction") return { data, width, height };
  const left = Math.trunc((width - width * rules.crop_fraction) / 2);
  const top = Math.trunc((height - height * rules.crop_fraction) / 2);
  const [wide, high] = [width - 2 * left, height - 2 * top];
  const part = new Uint8Array(3 * wide * high);
  for (let y = 0; y < high; y += 1) {
    const from = 3 * ((y + top) * width + left);
    part.set(data.subarray(from, from + 3 * wide), 3 * wide * y);
  }
  return { data: part, width: wide, height: high };
}

// In a browser: the pixels of a file, an image or a video, upright, on white, without colour
// management, as the contract has them.
export async function pixels(source) {
  const options = { colorSpaceConversion: "none", imageOrientation: "from-image" };
  const image = await createImageBitmap(source, options);
  const { width, height } = image;
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.drawImage(image, 0, 0);
  image.close();
  return context.getImageData(0, 0, width, height);
}
