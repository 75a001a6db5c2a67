// Runs a model for another program, which speaks on standard input and output:
// node session.mjs ENGINE MODEL, and then a number of images and the images, again and again.
//
//   in   uint32 count, count * 3 * size * size float32      out   count * classes float32
//
// First it says in a line of JSON what it is.
import { readFileSync, readSync, writeSync } from "node:fs";

import { open } from "./mobilenet.js";

const [engine, file] = process.argv.slice(2).map((path) => readFileSync(path));
const model = await open(engine, file);
const each = 3 * model.size * model.size;

// All of the buffer, or false where the input has ended.
function filled(buffer) {
  for (let at = 0; at < buffer.length; ) {
    const count = readSync(0, buffer, at, buffer.length - at, null);
    if (count === 0) return false;
    at += count;
  }
  return true;
}

function write(data) {
  for (let at = 0; at < data.length; ) at += writeSync(1, data, at, data.length - at);
}

const hello = {
  isa: model.instructionSet,
  node: process.version,
  precision: model.precision,
  classes: model.labels.length,
};
write(new TextEncoder().encode(`${JSON.stringify(hello)}\n`));
const header = new Uint8Array(4);
const image = new Float32Array(each);
while (filled(header)) {
  for (let left = new DataView(header.buffer).getUint32(0, true); left > 0; left -= 1) {
    if (!filled(new Uint8Array(image.buffer))) process.exit(1);
    const logits = model.run(image);
    write(new Uint8Array(logits.buffer, logits.byteOffset, logits.byteLength));
  }
}
