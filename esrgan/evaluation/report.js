"use strict";

// Tables: clicking a column header sorts by it, clicking again reverses the order. Rows without a value stay last.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.firstElementChild.addEventListener("click", () => {
    const isName = column === 0;
    const first = isName ? "ascending" : "descending";
    const order = head.ariaSort === first ? (isName ? "descending" : "ascending") : first;
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", order);
    const direction = order === "ascending" ? 1 : -1;
    const compare = (a, b) => {
      if (isName) return direction * a.textContent.localeCompare(b.textContent, undefined, { numeric: true });
      const [x, y] = [a.dataset.value, b.dataset.value];
      if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
      return x === y ? 0 : direction * (Number(x) - Number(y));
    };
    const body = table.tBodies[0];
    body.append(...[...body.rows].sort((a, b) => compare(a.cells[column], b.cells[column])));
  }));
}

// Zoom: one slider for all crops of the page.
const slider = document.querySelector(".zoom input");
function zoom(factor) {
  document.documentElement.style.setProperty("--zoom", factor);
  slider.value = factor;
  slider.nextElementSibling.textContent = factor === "1" ? "1:1" : `${factor}×`;
}
zoom(getComputedStyle(document.documentElement).getPropertyValue("--zoom").trim());
slider.addEventListener("input", () => zoom(slider.value));

// Comparison: a slider between any two crops of an image, at first the last model and HR.
const template = document.querySelector("template");
for (const article of document.querySelectorAll("article")) {
  const crops = [...article.querySelectorAll("figure.crop img")];
  const names = [...article.querySelectorAll("figure.crop b")].map((each) => each.textContent);
  const comparison = template.content.firstElementChild.cloneNode(true);
  const [images, selects] = ["img", "select"].map((tag) => [...comparison.querySelectorAll(tag)]);
  const divider = comparison.querySelector("input");
  const update = () => {
    images.forEach((image, side) => {
      const crop = crops[selects[side].value];
      [image.src, image.alt] = [crop.src, crop.alt];
    });
    const [left, right] = selects.map((select) => names[select.value]);
    comparison.style.setProperty("--split", `${divider.value}%`);
    divider.setAttribute("aria-valuetext", `${divider.value} % ${left}, ${100 - divider.value} % ${right}`);
  };
  selects.forEach((select, side) => {
    select.append(...names.map((name, i) => new Option(name, i)));
    select.selectedIndex = names.length - 2 + side;
  });
  comparison.ariaLabel = `Comparison of two versions of ${article.querySelector("h4").textContent}`;
  divider.ariaLabel = "Divider between the left and the right image";
  comparison.addEventListener("input", update);
  update();
  article.querySelector(".overview").prepend(comparison);
}

// Flip view: shows a crop as large as the screen allows, and switches to the other crops of the same image.
const dialog = document.querySelector("dialog");
const view = dialog.querySelector(".view");
const choices = dialog.querySelector(".choices");
let tiles = [], shown = 0, previous = 0;

function show(index) {
  if (index !== shown) previous = shown;
  shown = index;
  const tile = tiles[shown];
  const image = view.firstElementChild;
  image.src = tile.querySelector("img").src;
  image.alt = tile.querySelector("img").alt;
  dialog.querySelector("p").textContent = ["b", "span"].map((part) => tile.querySelector(`figcaption ${part}`).textContent).join(" ");
  [...choices.children].forEach((choice, i) => choice.setAttribute("aria-pressed", i === shown));
}

function open(tile) {
  const article = tile.closest("article");
  tiles = [...article.querySelectorAll(`figure.${tile.className}`)];
  dialog.querySelector("h2").textContent = article.querySelector("h4").textContent;
  choices.replaceChildren(...tiles.map((each, i) => {
    const choice = document.createElement("button");
    choice.type = "button";
    choice.textContent = each.querySelector("b").textContent;
    choice.addEventListener("click", () => show(i));
    return choice;
  }));
  // The first tap flips to the last tile, usually HR; later taps flip to the tile shown before.
  shown = tiles.length - 1;
  show(tiles.indexOf(tile));
  dialog.showModal();
  fit(article);
  view.focus();
}

function fit(article) {
  const [width, height] = ["--width", "--height"].map((name) => Number(article.style.getPropertyValue(name)));
  const image = view.firstElementChild;
  const around = dialog.scrollHeight - view.offsetHeight;
  const room = [document.documentElement.clientWidth * 0.9 / width, (innerHeight * 0.94 - around) / height];
  const factor = Math.max(1, Math.floor(Math.min(...room)));
  image.style.width = `${width * factor}px`;
  image.style.height = `${height * factor}px`;
}

for (const tile of document.querySelectorAll("figure")) {
  tile.querySelector("button").addEventListener("click", () => open(tile));
}
view.addEventListener("click", () => show(previous));
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
dialog.addEventListener("keydown", (event) => {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (step === undefined) return;
  event.preventDefault();
  show((shown + step + tiles.length) % tiles.length);
});

// Open all tables before printing, because they cannot be opened on paper.
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((each) => { each.open = true; }));
