// The page: a file or the camera in, labels out.
import { load, pixels } from "./mobilenet.js";

const part = (id) => document.getElementById(id);
let model = null;
let camera = null;

function say(text) {
  part("status").textContent = text;
}

function show(predictions, milliseconds) {
  part("labels").replaceChildren(
    ...predictions.map(({ label, score }) => {
      const line = document.createElement("li");
      const [name, bar, number] = ["span", "meter", "span"].map((tag) =>
        document.createElement(tag),
      );
      name.textContent = label;
      bar.value = score;
      number.textContent = `${(100 * score).toFixed(1)} %`;
      line.append(name, bar, number);
      return line;
    }),
  );
  say(`${milliseconds.toFixed(1)} ms, ${model.instructionSet}`);
}

async function answer(source) {
  const picture = await pixels(source);
  const start = performance.now();
  show(model.predict(picture), performance.now() - start);
}

async function answerFile(file) {
  stop();
  try {
    const image = part("picture");
    URL.revokeObjectURL(image.src);
    image.src = URL.createObjectURL(file);
    image.hidden = false;
    await answer(file);
  } catch (error) {
    say(`${file.name}: cannot be read as a picture (${error.message})`);
  }
}

function stop() {
  for (const track of camera?.getTracks() ?? []) track.stop();
  camera = null;
  part("video").hidden = true;
  part("camera").textContent = "Camera";
}

async function watch() {
  if (camera) return stop();
  try {
    const facing = { video: { facingMode: "environment" }, audio: false };
    camera = await navigator.mediaDevices.getUserMedia(facing);
  } catch (error) {
    return say(`no camera: ${error.message}`);
  }
  const video = part("video");
  video.srcObject = camera;
  video.hidden = false;
  part("picture").hidden = true;
  part("camera").textContent = "Stop";
  await video.play();
  const next = async () => {
    if (!camera) return;
    await answer(video);
    requestAnimationFrame(next);
  };
  return next();
}

part("file").addEventListener("change", (event) => {
  const [file] = event.target.files;
  if (file) answerFile(file);
});
part("camera").addEventListener("click", watch);
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  const [file] = event.dataTransfer.files;
  if (file) answerFile(file);
});

try {
  model = await load();
  part("file").disabled = false;
  part("camera").disabled = !navigator.mediaDevices;
  say(`${model.labels.length} classes; nothing that you show leaves this device`);
} catch (error) {
  say(`the model cannot be loaded: ${error.message}`);
}
