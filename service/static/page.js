"use strict";
// The page: the file and the options that are chosen, and how it goes with them.

const $ = (id) => document.getElementById(id);
const FORMATS = { tiff: "TIFF", png: "PNG", geojson: "QuPath GeoJSON", rois: "ImageJ ROIs", csv: "table of objects (CSV)", coco: "COCO JSON", rle: "run lengths (JSON)", npy: "NumPy .npy" };
const ASK_FOR_MODELS_MS = 2000;   // as long as there is none
let image = null;      // the chosen File
let others = "";       // what to say of the files that were dropped with it
let backdrop = null;   // ImageBitmap of it, where the browser can decode it
let result = null;     // JSON of the last answer
let shown = 1;         // the plane of it that is drawn
let running = null;    // AbortController of the request in work
let saving = false;    // a download is in work
let waiting = 0;       // timer of the next question for models, where there were none

function say(text, problem = false, line = $("status")) {
  line.textContent = text;
  line.classList.toggle("problem", problem);
}

function duration(seconds) {
  return seconds < 120 ? `${Math.ceil(seconds)} s` : `${Math.ceil(seconds / 60)} min`;
}

function offer() {   // one download at a time, of what is shown
  $("download").disabled = saving || !result;
}

function lay(picture, plane) {
  backdrop?.close();   // holds much memory
  [backdrop, shown] = [picture?.bitmap ?? null, plane];
}

function forget() {   // what is shown always belongs to the file and the options that are chosen
  result = null;
  lay(null, 1);
  $("stage").hidden = $("zoom").hidden = $("receipt-box").hidden = $("plane-label").hidden = true;
  $("facts").textContent = "";
  $("notes").replaceChildren();
  if (!saving) say("", false, $("saved"));
  offer();
}

async function segment(renewed = false) {
  if (!image) return;
  running?.abort();
  const mine = running = new AbortController(), file = image, note = others;
  const started = performance.now(), seconds = (digits) => `${((performance.now() - started) / 1000).toFixed(digits)} s`;
  say(`Segmenting ${file.name} …${note}`);
  let expected = "";
  const clock = setInterval(() => {   // beside the words, which are read aloud whenever they change
    if (running === mine) $("clock").textContent = seconds(1) + expected;
  }, 100);
  try {
    if (file.size === 0) throw new Error(`${file.name} is empty: it has 0 bytes.`);
    const plan = await forecast(file, mine.signal);
    if (plan) expected = ` of about ${duration(plan.expected_seconds)}`;
    const answer = await ask(file, query("segment", { format: "rle" }, OPTIONS), "json", mine.signal);
    const picture = await decodedInTurn(file, answer.body, 0, () => !mine.signal.aborted, () => mine.signal.aborted);
    if (mine.signal.aborted) return;
    result = answer.body;
    lay(picture, 1);
    const planes = result.planes?.length ?? 1;
    $("plane").max = planes;
    $("plane").value = 1;
    $("plane-label").hidden = planes < 2;
    offer();
    $("notes").replaceChildren(...result.receipt.input.notes.map((words) => Object.assign(document.createElement("li"), { textContent: words })));
    $("receipt").textContent = JSON.stringify(result.receipt, null, 2);
    $("receipt-box").hidden = false;
    say(`Done in ${seconds(2)}` + (picture.bitmap ? "" : `; ${picture.why}, so the result stands alone`) + note);
    draw();
  } catch (error) {
    if (error.unknownModel && !renewed) await listModels();
    if (mine.signal.aborted) return;
    if (error.unknownModel && !renewed) return segment(true);
    forget();
    say(error.message + note, true);
  } finally {
    clearInterval(clock);
    if (running === mine) $("clock").textContent = "";
  }
}

async function download() {
  const file = image, line = $("saved");   // others may be chosen meanwhile
  saving = true;
  offer();
  try {
    say(`Writing the file of ${file.name} …`, false, line);
    const answer = await ask(file, query("segment", { format: $("format").value }, OPTIONS), "blob");
    const named = /filename="([^"]+)"/.exec(answer.headers.get("content-disposition") ?? "")?.[1] ?? "result";
    const link = document.createElement("a");
    link.href = URL.createObjectURL(answer.body);
    link.download = file.name.replace(/\.[^.]*$/, "") + "-" + named;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    say(`Saved ${link.download}`, false, line);
  } catch (error) {
    say(`Nothing is saved of ${file.name}: ${error.message}`, true, line);
    if (error.unknownModel) {   // what is shown is of it, too
      await listModels();
      segment();
    }
  } finally {
    saving = false;
    offer();
  }
}

function choose(files) {
  if (files.length === 0) return;
  image = files[0];
  others = files.length > 1 ? ` (${files.length} files dropped; this page takes one at a time, and this is ${image.name})` : "";
  forget();
  segment();
}

// Fills the list of models; asks again until there are some. The choice stays as it is, or else the same name's next version.
async function listModels() {
  const listed = await fetch("models").then((answer) => answer.json()).catch(() => null), models = listed?.models ?? [];
  clearTimeout(waiting);
  if (models.length === 0) {
    if (!waiting) say(listed ? "No model is served yet; readiness says why." : "The service does not answer.", true);
    waiting = setTimeout(listModels, ASK_FOR_MODELS_MS);
    return;
  }
  const list = $("model"), before = list.value, references = models.map((model) => `${model.name}@${model.version}`);
  list.replaceChildren(...models.map((model, index) => new Option(`${model.title} (${references[index]})`, references[index], model.default, model.default)));
  const kept = references.find((reference) => reference === before) ?? references.find((reference) => reference.startsWith(before.split("@")[0] + "@"));
  if (kept) list.value = kept;
  if (!waiting) return;
  waiting = 0;
  if (!image) say("");
  else if (!result) segment();
}

const drop = $("drop");
drop.addEventListener("click", () => $("file").click());
drop.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" && event.key !== " ") return;
  event.preventDefault();   // space would scroll the page
  $("file").click();
});
$("file").addEventListener("change", (event) => { choose(event.target.files); event.target.value = ""; });
$("file").addEventListener("click", (event) => event.stopPropagation());
for (const name of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", name === "dragover");
    if (name === "drop") choose(event.dataTransfer.files);
  });
}
for (const name of [...OPTIONS, "output", "mirror"]) {
  $(name).addEventListener("change", () => segment());
  $(name).addEventListener("blur", () => { if ($(name).validity.badInput) segment(); });   // which is no change from empty
}
$("fit").addEventListener("change", () => {
  $("scale").disabled = $("fit").checked;
  segment();
});
$("opacity").addEventListener("input", draw);
$("plane").addEventListener("input", async () => {
  const answer = result, plane = Number($("plane").value), isLatest = () => answer === result && plane === Number($("plane").value);
  const picture = answer && await decodedInTurn(image, answer, plane - 1, isLatest, () => answer !== result);
  if (!picture || answer !== result) return;
  lay(picture, plane);
  draw();
});
for (const name of ["canvas", "zoom"]) {
  $(name).addEventListener("click", () => {
    $("zoom").setAttribute("aria-pressed", $("canvas").classList.toggle("whole"));
    draw();
  });
}
$("download").addEventListener("click", download);
$("options").addEventListener("submit", (event) => event.preventDefault());
$("format").append(...Object.entries(FORMATS).map(([name, title]) => new Option(title, name)));
listModels();
