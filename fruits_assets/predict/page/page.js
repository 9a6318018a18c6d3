// Sends a chosen photo to this server and shows what it says. All that it says is set as text, never as HTML.

const part = (id) => document.getElementById(id);
const MAX_BYTES = Number(part("asking").dataset.maxBytes);
const PREVIEW_PIXELS = 900;
const TRIES = 5;

let asked = new AbortController();

for (const id of ["camera", "file"]) {
  part(id).addEventListener("change", (event) => {
    const [photo] = event.target.files;
    if (photo) ask(photo);
    event.target.value = ""; // or the same photo could not be chosen again
  });
}

// A photo that is dropped beside the frame must not take the place of the page.
for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    part("photo").classList.toggle("over", kind === "dragenter" || kind === "dragover");
    if (kind === "drop" && event.dataTransfer.files.length) ask(event.dataTransfer.files[0]);
  });
}

async function ask(photo) {
  asked.abort();
  asked = new AbortController();
  const { signal } = asked;
  show("waiting");
  say("Looking at your photo");
  part("waiting-text").textContent = "Looking …";
  preview(photo, signal);
  try {
    if (photo.size > MAX_BYTES) throw new Error(`This photo has more than ${MAX_BYTES / 2 ** 20} MB.`);
    const answer = await answerTo(photo, signal);
    if (!signal.aborted) tell(answer);
  } catch (error) {
    if (signal.aborted) return;
    const reason = error instanceof TypeError ? "The server cannot be reached." : error.message;
    part("trouble-title").textContent = "That did not work";
    part("trouble-reason").textContent = reason;
    part("no-preview").hidden = true;
    part("versions").textContent = "";
    show("trouble");
    say(`That did not work. ${reason}`);
  }
}

async function answerTo(photo, signal) {
  for (let tries = 1; ; tries += 1) {
    const response = await fetch("/predict", {
      method: "POST", body: photo, headers: { "Content-Type": "application/octet-stream" }, signal,
    });
    const pause = Number(response.headers.get("Retry-After"));
    if (response.status !== 503 || !pause || tries === TRIES) {
      const answer = await response.json();
      if (response.ok) return answer;
      const sentence = answer.reason[0].toUpperCase() + answer.reason.slice(1);
      throw new Error(response.status === 422 ? `This file cannot be used: ${answer.reason}.` : `${sentence}.`);
    }
    part("waiting-text").textContent = "Many photos are being looked at; yours is next soon …";
    await new Promise((resolve) => setTimeout(resolve, 1000 * pause));
    signal.throwIfAborted();
  }
}

async function preview(photo, signal) {
  let picture = null;
  try {
    picture = await createImageBitmap(photo);
  } catch {
    // Not every browser knows every format.
  }
  if (signal.aborted) return;
  const canvas = part("preview");
  if (picture) {
    const scale = Math.min(1, PREVIEW_PIXELS / Math.max(picture.width, picture.height));
    canvas.width = Math.max(1, Math.round(picture.width * scale));
    canvas.height = Math.max(1, Math.round(picture.height * scale));
    canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
    picture.close();
  }
  canvas.hidden = !picture;
  part("empty").hidden = Boolean(picture);
  part("no-preview").hidden = Boolean(picture);
  part("drop-hint").hidden = true;
  part("photo").classList.toggle("filled", Boolean(picture));
}

function tell(answer) {
  const { known } = answer;
  const name = known ? answer.label : "I don’t know this one";
  part("result").classList.toggle("unknown", !known);
  part("fruit").textContent = name;
  part("sure").hidden = !known;
  part("unlike").hidden = known;
  if (known) {
    part("certainty").textContent = answer.certainty;
    part("probability").textContent = percent(answer.probability);
    part("fill").style.width = `${100 * answer.probability}%`;
  }
  const others = answer.runners_up.slice(0, known ? 3 : 2);
  part("others-title").textContent = known ? "Or else" : "If I had to guess";
  part("others-title").hidden = !others.length;
  // How probable a guess would be among fruits that it is none of means nothing.
  part("others").replaceChildren(...others.map((other) => row(other.label, known ? percent(other.probability) : "")));
  part("similar-title").hidden = !answer.similar.length;
  part("similar").replaceChildren(...answer.similar.map(figure));
  part("versions").textContent =
    "Said by " + Object.entries(answer.versions).map(([asset, number]) => `${asset} ${number}`).join(", ") + ".";
  show("result");
  const sure = known ? `${answer.certainty}, ${percent(answer.probability)}` : "it is unlike all photos I have learned from";
  say(`${name}: ${sure}.`);
}

function row(name, value) {
  const item = document.createElement("li");
  for (const text of [name, value]) {
    const cell = document.createElement("span");
    cell.textContent = text;
    item.append(cell);
  }
  return item;
}

function figure(photo) {
  const item = document.createElement("li");
  const picture = document.createElement("img");
  const name = document.createElement("p");
  picture.alt = "";
  picture.src = photo.picture;
  picture.addEventListener("error", () => item.remove()); // it has been erased meanwhile
  name.textContent = photo.label;
  item.append(picture, name);
  return item;
}

function percent(share) {
  if (share > 0.999) return "more than 99.9 %";
  if (share < 0.001) return "less than 0.1 %";
  return `${(100 * share).toFixed(1)} %`;
}

function say(text) {
  part("said").textContent = text;
}

function show(id) {
  for (const other of ["idle", "waiting", "trouble", "result"]) part(other).hidden = other !== id;
  part("answer").setAttribute("aria-busy", String(id === "waiting"));
  // On a phone it is below the photo.
  if (part("answer").getBoundingClientRect().top > innerHeight / 2) part("answer").scrollIntoView();
}
