"use strict";
// The page: the file and the options that are chosen, and how it goes with them.

const $ = (id) => document.getElementById(id);
const FORMATS = { tiff: "TIFF", png: "PNG", geojson: "QuPath GeoJSON", rois: "ImageJ ROIs", csv: "table of objects (CSV)", coco: "COCO JSON", rle: "run lengths (JSON)", npy: "NumPy .npy" };
const STEPS_S = 0.3;   // more steps of a number may follow
const ASK_FOR_MODELS_MS = 2000;   // as long as there is none
const MOST_MODELS_MS = 20000; // a connection that is dead without a word is not waited for
let image = null;      // the chosen File
let others = "";       // what to say of the files that were dropped with it
let layers = null;     // what is drawn: the picture, where the browser can decode it, and the objects
let result = null;     // JSON of the last answer
let shown = 1;         // the plane of it that is drawn
let isCurrent = false; // it is of the file and the options that are chosen
let isLong = false;    // it came as a job
let running = null;    // the segmentation in work, or the last one
let saving = null;     // the download in work
let most = Infinity;   // bytes of a file that the service takes
let waiting = 0;       // timer of the next question for models, where there were none

function offer() {   // one download at a time, of what is shown
  $("download").disabled = saving !== null || !isCurrent;
  document.body.classList.toggle("outdated", !isCurrent);
  $("stage").setAttribute("aria-busy", !isCurrent);
}

function forget() {   // what is shown always belongs to the file that is chosen; of other options it is marked as outdated
  result = null;
  isCurrent = false;
  [layers, shown] = [null, 1];
  $("plane").value = $("plane").max = 1;
  $("stage").hidden = $("zoom").hidden = $("receipt-box").hidden = $("plane-label").hidden = true;
  $("facts").textContent = "";
  $("notes").replaceChildren();
  if (!saving) say("", false, $("saved"));
  offer();
}

async function segment({ renewed = false, after = 0 } = {}) {
  if (!image) return;
  running?.cancel();
  const file = image, note = others, mine = running = new Work({ line: $("status"), clock: $("clock"), cancel: $("cancel") }, `Segmenting ${file.name} …${note}`);
  isCurrent = false;
  $("again").hidden = true;
  offer();
  try {
    if (after) await mine.sleep(after);
    if (file.size === 0) throw new Error(`${file.name} is empty: it has 0 bytes.`);
    if (file.size > most) throw new Error(`${file.name} has ${file.size} bytes, the service takes ${most}; ${REMEDIES["body-too-large"]()} (UNET_MAX_BODY_MB).`);
    const address = query("segment", { format: "rle" }, OPTIONS), plan = await forecast(file, mine.signal);
    if (plan) mine.note = ` of about ${duration(plan.expected_seconds)}`;
    const answer = await ask(file, address, "json", mine, plan?.isLong ?? false);
    const planes = answer.body.planes?.length ?? 1, plane = Math.min(Number($("plane").value), planes);
    const picture = await pictureInTurn(file, answer.body, plane - 1, () => !mine.signal.aborted, () => mine.signal.aborted);
    mine.signal.throwIfAborted();
    [result, isLong, isCurrent, layers, shown] = [answer.body, answer.asJob, true, picture.layers, plane];
    $("plane").max = planes;
    $("plane-label").hidden = planes < 2;
    $("notes").replaceChildren(...result.receipt.input.notes.map((words) => Object.assign(document.createElement("li"), { textContent: words })));
    $("receipt").textContent = JSON.stringify(result.receipt, null, 2);
    $("receipt-box").hidden = false;
    say(`Done in ${mine.seconds(2)}` + (picture.why ? `; ${picture.why}` : "") + (picture.isShown ? "" : ", so the result stands alone") + note);
    draw();
    if (Number($("plane").value) !== shown) turn();   // it was moved meanwhile
  } catch (error) {
    if (error.unknownModel && !renewed) await listModels();
    if (running !== mine) return;
    if (error.unknownModel && !renewed) return segment({ renewed: true });
    const isCancelled = mine.signal.aborted, words = isCancelled ? `Cancelled ${file.name}.` : (note || names(error.message, file) ? "" : `${file.name}: `) + error.message;
    say((result ? words.replace(/\.$/, "") + "; what is shown is the result before." : words) + note, !isCancelled);
    $("again").hidden = !(isCancelled || error.again);
    if (isCancelled) $("again").focus();
  } finally {
    mine.end();
    if (running === mine && kept.json) {   // it goes on where nobody sees it
      $("cancel").hidden = false;
      $("cancel").onclick = () => {
        leave();
        $("cancel").hidden = $("again").hidden = true;
        say(`Cancelled ${file.name}.`);
      };
    }
    offer();
  }
}

function names(words, file) {   // of problems: what one says of a file itself begins with its name
  return words.startsWith(`${file.name} `);
}

function leave() {   // the job that the page was cut off from
  if (kept.json) release(kept.json.id);
  delete kept.json;
}

// Shows the plane that the slider has come to.
async function turn() {
  const answer = result, plane = Number($("plane").value), isLatest = () => answer === result && plane === Number($("plane").value);
  if (!answer) return;
  const picture = await pictureInTurn(image, answer, plane - 1, isLatest, () => answer !== result);
  if (!picture || answer !== result) return;
  [layers, shown] = [picture.layers, plane];
  draw();
}

// Shows each drawn pixel as it is, or all of the image. What was clicked stays under the pointer, else the middle is shown.
function zoom(click) {
  const [stage, canvas] = [$("stage"), $("canvas")], [frame, before] = [stage.getBoundingClientRect(), canvas.getBoundingClientRect()];
  const place = click ? [(click.clientX - before.left) / before.width, (click.clientY - before.top) / before.height] : [0.5, 0.5];
  $("zoom").setAttribute("aria-pressed", canvas.classList.toggle("whole"));
  draw();
  const seen = click ? [click.clientX - frame.left, click.clientY - frame.top] : [stage.clientWidth / 2, stage.clientHeight / 2];
  stage.scrollTo({ left: place[0] * canvas.offsetWidth - seen[0], top: place[1] * canvas.offsetHeight - seen[1], behavior: "instant" });
}

async function download() {
  const file = image, line = $("saved"), work = new Work({ line, clock: $("saved-clock"), cancel: $("cancel-download") }, `Writing the file of ${file.name} …`);
  saving = work;   // another file may be chosen meanwhile
  offer();
  try {
    const answer = await ask(file, query("segment", { format: $("format").value }, OPTIONS), "blob", work, isLong);
    const named = /filename="([^"]+)"/.exec(answer.headers.get("content-disposition") ?? "")?.[1] ?? "result";
    const link = document.createElement("a");
    link.href = URL.createObjectURL(answer.body);
    link.download = file.name.replace(/\.[^.]*$/, "") + "-" + named;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    say(`Saved ${link.download}`, false, line);
  } catch (error) {
    const isCancelled = work.signal.aborted, words = isCancelled ? "it was cancelled." : error.message;
    say(`Nothing is saved${names(words, file) ? "" : ` of ${file.name}`}: ${words}`, !isCancelled, line);
    if (error.unknownModel) {   // what is shown is of it, too
      await listModels();
      segment();
    }
  } finally {
    work.end();
    saving = null;
    offer();
  }
}

function choose(files) {
  if (files.length === 0) return;
  image = files[0];
  others = files.length > 1 ? ` (${files.length} files dropped; this page takes one at a time, and this is ${image.name})` : "";
  forget();
  leave();
  segment();
}

// Fills the list of models; asks again until there are some. The choice stays as it is, or else the same name's next version.
async function listModels() {
  const listed = await fetch("models", {signal: AbortSignal.timeout(MOST_MODELS_MS)}).then((answer) => answer.json()).catch(() => null), models = listed?.models ?? [];
  most = listed?.max_body_bytes ?? most;
  clearTimeout(waiting);
  if (models.length === 0) {
    if (!waiting) say(listed ? `No model is served yet${listed.problem ? `: ${listed.problem}` : ""}.` : "The service does not answer.", true);
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
  else if (!isCurrent) segment();
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
  $(name).addEventListener("change", () => segment({ after: $(name).type === "number" ? STEPS_S : 0 }));
  $(name).addEventListener("blur", () => { if ($(name).validity.badInput || $(name).getAttribute("aria-invalid") === "true") segment(); });   // which is no change from empty, nor to it
}
$("fit").addEventListener("change", () => {
  $("scale").disabled = $("fit").checked;
  segment();
});
$("opacity").addEventListener("input", drawSoon);
$("plane").addEventListener("input", turn);
for (const name of ["canvas", "zoom"]) {
  $(name).addEventListener("click", (event) => zoom(name === "canvas" ? event : null));
}
$("download").addEventListener("click", download);
$("again").addEventListener("click", () => segment());
$("options").addEventListener("submit", (event) => event.preventDefault());
addEventListener("pagehide", (event) => {
  if (event.persisted) return;   // it may come back, and go on
  running?.controller.abort();   // first: what is still sent shall make no job after its deletion
  saving?.controller.abort();
  releaseAll();
});
for (const label of document.querySelectorAll("label[title]")) label.control.title = label.title;   // where assistive technology finds it
$("format").append(...Object.entries(FORMATS).map(([name, title]) => new Option(title, name)));
listModels();
