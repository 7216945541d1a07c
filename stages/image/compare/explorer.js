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
  const select = element("select"), slider = element("input", { type: "range", min: 0, step: 1 });
  const share = element("output"), canvas = element("canvas"), facts = element("dl");
  for (const model of data.models) select.append(element("option", { textContent: model.label }));
  select.selectedIndex = Math.min(start, data.models.length - 1);
  canvas.setAttribute("role", "img");
  root.append(element("label", {}, "Model", select), element("label", {}, "Samples: ", share, slider), canvas, facts);

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

function walk() {
  const models = data.models.filter((model) => model.latents);
  if (!models.length) return Promise.resolve();
  const [select, row, column, canvas] = ["model", "row", "column", "image"].map((name) => document.getElementById(`latent-${name}`));
  for (const model of models) select.append(element("option", { textContent: model.label }));

  async function draw() {
    const { source, columns } = models[select.selectedIndex].latents, size = scale(256);
    const image = await newest(canvas, source);
    if (!image) return;
    canvas.width = data.width * size;
    canvas.height = data.height * size;
    tile(canvas.getContext("2d"), image, columns, Number(row.value) * columns + Number(column.value), 0, 0, canvas.width, canvas.height);
  }

  function choose() {
    const { rows, columns } = models[select.selectedIndex].latents;
    row.max = rows - 1;
    column.max = columns - 1;
    row.value = Math.floor(rows / 2);
    column.value = Math.floor(columns / 2);
    return draw();
  }

  select.addEventListener("change", choose);
  row.addEventListener("input", draw);
  column.addEventListener("input", draw);
  document.getElementById("latents").hidden = false;
  return choose();
}

document.getElementById("large").querySelector("button").addEventListener("click", () => document.getElementById("large").close());
Promise.all([panel(document.getElementById("left"), 0), panel(document.getElementById("right"), data.models.length - 1), walk()])
  .then(() => { document.body.dataset.ready = "yes"; });
