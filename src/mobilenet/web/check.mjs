// Checks this folder on this machine: node check.mjs
//
// The golden pictures (golden.npz) go through the preprocessing and the network; prints one line of
// JSON, and exits with 1 where they do not come out as they were when the model was exported.
import { readFileSync } from "node:fs";
import { inflateRawSync } from "node:zlib";

import { load } from "./mobilenet.js";

const bytes = (name) => readFileSync(new URL(name, import.meta.url));

// The arrays of an .npz file, a zip archive of .npy files: { shape, data } by name.
function arrays(file) {
  const found = {};
  let at = file.readUInt32LE(file.lastIndexOf("PK\x05\x06", undefined, "latin1") + 16);
  while (file.readUInt32LE(at) === 0x02014b50) {
    const [packed, name, extra, comment] = [20, 28, 30, 32].map((offset) =>
      offset === 20 ? file.readUInt32LE(at + 20) : file.readUInt16LE(at + offset),
    );
    const local = file.readUInt32LE(at + 42);
    const start = local + 30 + file.readUInt16LE(local + 26) + file.readUInt16LE(local + 28);
    const stored = file.subarray(start, start + packed);
    const content = file.readUInt16LE(at + 10) === 8 ? inflateRawSync(stored) : stored;
    found[file.toString("utf8", at + 46, at + 46 + name).replace(/\.npy$/, "")] = array(content);
    at += 46 + name + extra + comment;
  }
  return found;
}

function array(npy) {
  const start = 10 + npy.readUInt16LE(8);
  const header = npy.toString("latin1", 10, start);
  const shape = header.match(/\(([\d, ]*)\)/)[1].split(",").filter(Boolean).map(Number);
  const copy = new Uint8Array(npy.subarray(start)).buffer;
  return { shape, data: header.includes("<f4") ? new Float32Array(copy) : new Uint8Array(copy) };
}

const apart = (a, b) => a.reduce((most, x, i) => Math.max(most, Math.abs(x - b[i])), 0);

const model = await load(bytes);
const golden = arrays(bytes("golden.npz"));
const [count, classes] = golden.logits.shape;
const pixels = golden.inputs.data.length / count;
let [input, logit] = [0, 0];
for (let i = 0; i < count; i += 1) {
  const { shape, data } = golden[`image_${i}`];
  const wanted = golden.inputs.data.subarray(i * pixels, (i + 1) * pixels);
  const logits = golden.logits.data.subarray(i * classes, (i + 1) * classes);
  input = Math.max(input, apart(model.prepare({ data, width: shape[1], height: shape[0] }), wanted));
  logit = Math.max(logit, apart(model.run(wanted), logits));
}
const { tolerance } = model.contract.artifact.golden;
const level = 1.001 / 255 / Math.min(...model.contract.preprocess.std); // one grey level
const ok = logit <= tolerance && input <= level;
console.log(
  JSON.stringify({
    ok,
    images: count,
    max_logit_error: logit,
    logit_tolerance: tolerance,
    max_input_error: input,
    instruction_set: model.instructionSet,
  }),
);
process.exit(ok ? 0 : 1);
