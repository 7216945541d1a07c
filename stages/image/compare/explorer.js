"use strict";
// All text from the data is set as text, never as markup.
const data = JSON.parse(document.getElementById("data").textContent);
const GAP = 3;
const pictures = new Map();

function picture(source) {
  if (!pictures.has(source)) {
    const image = new Image();
    image.src = source;
    pictures.set(source, image.decode().then(() => image));
  }
  return pictures.get(source);
}

// The picture for a part of the page, or nothing if another was asked for while this one was being decoded.
async function newest(part, source) {
  part.dataset.source = source;
  part.setAttribute("aria-busy", "true");
  const image = await picture(source);
  if (part.dataset.source !== source) return null;
  part.setAttribute("aria-busy", "false");
  return image;
}

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function tile(context, image, columns, index, x, y, width, height) {
  const from = [(index % columns) * data.width, Math.floor(index / columns) * data.height];
  context.imageSmoothingEnabled = false;
  context.drawImage(image, ...from, data.width, data.height, x, y, width, height);
}

function scale(pixels) {
  return Math.max(1, Math.round(pixels / Math.max(data.width, data.height)));
}

function panel(root, start) {
  const select = element("select"), slider = element("input", { type: "range", min: 0, step: 1, id: `${root.id}-share` });
  const share = element("output"), canvas = element("canvas"), facts = element("dl");
  for (const model of data.models) select.append(element("option", { textContent: model.label }));
  select.selectedIndex = Math.min(start, data.models.length - 1);
  canvas.setAttribute("role", "img");
  // An output can be labelled too: without its name the label would belong to the output and not to the slider.
  const samples = element("label", { htmlFor: slider.id }, "Samples: ", share, slider);
  root.append(element("label", {}, "Model", select), samples, canvas, facts);

  async function draw() {
    const model = data.models[select.selectedIndex], sheet = model.sheets[Number(slider.value)];
    share.textContent = sheet.name;
    const image = await newest(root, sheet.source), size = scale(32);
    if (!image) return;
    const width = data.width * size, height = data.height * size, rows = Math.ceil(sheet.count / data.columns);
    canvas.width = Math.min(sheet.count, data.columns) * (width + GAP) - GAP;
    canvas.height = rows * (height + GAP) - GAP;
    const context = canvas.getContext("2d");
    for (let index = 0; index < sheet.count; index++) {
      const place = [index % data.columns, Math.floor(index / data.columns)];
      tile(context, image, data.columns, index, place[0] * (width + GAP), place[1] * (height + GAP), width, height);
    }
    canvas.setAttribute("aria-label", `${sheet.count} images of ${model.label}, ${sheet.name}`);
  }

  function choose() {
    const model = data.models[select.selectedIndex];
    slider.max = model.sheets.length - 1;
    slider.value = Math.max(0, model.sheets.findIndex((sheet) => sheet.shown));
    slider.disabled = model.sheets.length < 2;
    facts.replaceChildren(...model.facts.flatMap(([name, value]) => [
      element("dt", { textContent: name }), element("dd", { textContent: value }),
    ]));
    return draw();
  }

  canvas.addEventListener("click", (event) => {
    const model = data.models[select.selectedIndex], sheet = model.sheets[Number(slider.value)];
    const across = Math.min(sheet.count, data.columns), rows = Math.ceil(sheet.count / data.columns);
    const column = Math.floor((event.offsetX / canvas.clientWidth) * across);
    const row = Math.floor((event.offsetY / canvas.clientHeight) * rows);
    const index = row * data.columns + column;
    if (index < sheet.count) enlarge(sheet, index, `${model.label}, ${sheet.name}, image ${index + 1}`);
  });
  select.addEventListener("change", choose);
  slider.addEventListener("input", draw);
  return choose();
}

async function enlarge(sheet, index, words) {
  const dialog = document.getElementById("large"), canvas = dialog.querySelector("canvas"), size = scale(320);
  canvas.width = data.width * size;
  canvas.height = data.height * size;
  tile(canvas.getContext("2d"), await picture(sheet.source), data.columns, index, 0, 0, canvas.width, canvas.height);
  dialog.querySelector("p").textContent = words;
  dialog.showModal();
}

// A plane of latents and the image at one point of it; `point` says where it is, as shares of the way down and across.
function plane(root, model, point, go) {
  const { source, rows, columns, about } = model.latents;
  const shown = element("canvas"), whole = element("canvas"), part = element("article", { className: "plane" });
  for (const canvas of [shown, whole]) canvas.setAttribute("role", "img");
  whole.setAttribute("aria-label", `${model.label}: the whole plane`);
  part.append(element("h3", { textContent: model.label }), element("div", { className: "views" }, shown, whole));
  part.append(element("p", { textContent: about }));
  root.append(part);

  async function draw() {
    const image = await newest(part, source), size = scale(192);
    if (!image) return;
    const [down, across] = point(), row = Math.round(down * (rows - 1)), column = Math.round(across * (columns - 1));
    shown.width = data.width * size;
    shown.height = data.height * size;
    tile(shown.getContext("2d"), image, columns, row * columns + column, 0, 0, shown.width, shown.height);
    shown.setAttribute("aria-label", `${model.label}: image ${row + 1} of ${rows} down, ${column + 1} of ${columns} across`);
    const enlarged = Math.max(1, Math.round(576 / Math.max(image.width, image.height)));
    const [width, height] = [data.width * enlarged, data.height * enlarged], [right, below] = [width + 2 * GAP, height + 2 * GAP];
    whole.width = columns * right;
    whole.height = rows * below;
    const context = whole.getContext("2d");
    for (let index = 0; index < rows * columns; index++) {
      tile(context, image, columns, index, (index % columns) * right + GAP, Math.floor(index / columns) * below + GAP, width, height);
    }
    for (const [thickness, colour] of [[5 * GAP, "#ffffff"], [3 * GAP, "#d55e00"]]) {
      context.lineWidth = thickness;
      context.strokeStyle = colour;
      context.strokeRect(column * right + GAP, row * below + GAP, width, height);
    }
  }

  whole.addEventListener("click", (event) => {
    const place = (offset, length, count) => Math.floor((offset / length) * count) / Math.max(1, count - 1);
    go(place(event.offsetY, whole.clientHeight, rows), place(event.offsetX, whole.clientWidth, columns));
  });
  return draw;
}

function walk() {
  const models = data.models.filter((model) => model.latents);
  if (!models.length) return Promise.resolve();
  const sliders = ["row", "column"].map((name) => document.getElementById(`latent-${name}`));
  const last = Math.max(1, ...models.flatMap(({ latents }) => [latents.rows - 1, latents.columns - 1]));
  const point = () => sliders.map((slider) => Number(slider.value) / last);
  const planes = models.map((model) => plane(document.getElementById("planes"), model, point, go));

  function draw() {
    for (const slider of sliders) slider.parentElement.querySelector("output").textContent = `${Number(slider.value) + 1} of ${last + 1}`;
    return Promise.all(planes.map((one) => one()));
  }

  function go(...shares) {
    sliders.forEach((slider, index) => { slider.value = Math.round(shares[index] * last); });
    return draw();
  }

  for (const slider of sliders) {
    slider.max = last;
    slider.addEventListener("input", draw);
  }
  document.getElementById("latents").hidden = false;
  return go(0.5, 0.5);
}

document.getElementById("large").querySelector("button").addEventListener("click", () => document.getElementById("large").close());
Promise.all([panel(document.getElementById("left"), 0), panel(document.getElementById("right"), data.models.length - 1), walk()])
  .then(() => { document.body.dataset.ready = "yes"; });
