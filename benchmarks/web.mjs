// What was exported for the web beside onnxruntime-web, in one process, in turns:
//
//   npm install onnxruntime-web     (anywhere; its folder goes into NODE_PATH's place, below)
//   node benchmarks/web.mjs ORT_FOLDER WEB_FOLDER ONNX_FOLDER [ROUNDS [RUNS]]
//
// ORT_FOLDER is node_modules/onnxruntime-web; both folders are exports of one run. One thread each.
import { readFileSync } from "node:fs";
import { cpus, loadavg } from "node:os";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

const [ortFolder, web, onnx, rounds = "10", runs = "20"] = process.argv.slice(2);
const ort = await import(pathToFileURL(resolve(ortFolder, "dist/ort.node.min.mjs")).href).catch(
  () => import(pathToFileURL(resolve(ortFolder, "dist/ort.wasm.min.mjs")).href),
);
ort.env.wasm.numThreads = 1;
const read = (folder) => (name) => readFileSync(join(folder, name));
const { load } = await import(pathToFileURL(resolve(web, "mobilenet.js")).href);

const ours = await load(read(web));
const file = JSON.parse(read(onnx)("model.json")).artifact;
const session = await ort.InferenceSession.create(read(onnx)(file.file), {
  executionProviders: ["wasm"],
  graphOptimizationLevel: "all",
});
const size = ours.size;
const image = Float32Array.from({ length: 3 * size * size }, (_, i) => Math.sin(i * 0.01) * 2);
const tensor = new ort.Tensor("float32", image, [1, 3, size, size]);
const theirs = async () => (await session.run({ [file.input.name]: tensor })).logits.data;

const [a, b] = [ours.run(image), await theirs()];
const apart = a.reduce((most, x, i) => Math.max(most, Math.abs(x - b[i])), 0);
const contenders = { mobilenet: async () => ours.run(image), "onnxruntime-web": theirs };
const taken = Object.fromEntries(Object.keys(contenders).map((name) => [name, []]));
for (let round = 0; round < Number(rounds); round += 1) {
  const turn = Object.entries(contenders);
  if (round % 2) turn.reverse();
  for (const [name, run] of turn) {
    for (let i = 0; i < 3; i += 1) await run();
    for (let i = 0; i < Number(runs); i += 1) {
      const start = performance.now();
      await run();
      taken[name].push(performance.now() - start);
    }
  }
}
const at = (times, part) => times.sort((x, y) => x - y)[Math.floor(part * (times.length - 1))];
for (const [name, times] of Object.entries(taken))
  console.log(
    `${name.padEnd(16)} median ${at(times, 0.5).toFixed(2)} ms, p10 ${at(times, 0.1).toFixed(2)}, ` +
      `p90 ${at(times, 0.9).toFixed(2)}`,
  );
console.log(
  `${ours.contract.model.name} ${ours.contract.model.width}, ${size} px, ${ours.precision} and ` +
    `${file.precision}: logits differ by ${apart.toPrecision(2)}; ${rounds} rounds of ${runs} in ` +
    `turns, 1 thread, node ${process.version}, onnxruntime-web ` +
    `${JSON.parse(readFileSync(join(ortFolder, "package.json"))).version}; ${cpus()[0].model}, ` +
    `load ${loadavg()[0].toFixed(1)}`,
);
