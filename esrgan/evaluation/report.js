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

// Comparison: two versions of a crop on either side of a boundary, as large as the screen allows.
const dialog = document.querySelector("dialog");
const view = dialog.querySelector(".view");
const boundary = dialog.querySelector("input");
const sides = [...dialog.querySelectorAll("select")];
let tiles = [];

function show() {
  const shown = sides.map((side) => tiles[side.selectedIndex]);
  [...view.children].forEach((image, side) => {
    image.src = shown[side].querySelector("img").src;
    image.alt = shown[side].querySelector("img").alt;
  });
  view.style.setProperty("--boundary", `${boundary.value}%`);
  dialog.querySelector("p").textContent = shown.map((tile) => tile.querySelector("figcaption").textContent).join(" | ");
}

function open(tile) {
  const article = tile.closest("article");
  tiles = [...article.querySelectorAll(`figure.${tile.className}`)];
  dialog.querySelector("h2").textContent = article.querySelector("h4").textContent;
  const names = tiles.map((each) => each.querySelector("b").textContent);
  for (const side of sides) side.replaceChildren(...names.map((name) => new Option(name)));
  // The right side is the last version, usually HR, or the one before if that was selected.
  const left = tiles.indexOf(tile), last = tiles.length - 1;
  sides[0].selectedIndex = left;
  sides[1].selectedIndex = left < last ? last : Math.max(0, last - 1);
  boundary.value = 50;
  show();
  dialog.showModal();
  fit(article);
  boundary.focus();
}

function fit(article) {
  const [width, height] = ["--width", "--height"].map((name) => Number(article.style.getPropertyValue(name)));
  const around = dialog.scrollHeight - view.offsetHeight;
  const room = [document.documentElement.clientWidth * 0.9 / width, (innerHeight * 0.94 - around) / height];
  const factor = Math.max(1, Math.floor(Math.min(...room)));
  view.style.width = `${width * factor}px`;
  view.style.height = `${height * factor}px`;
}

function drag(event) {
  if (!event.buttons) return;
  const box = view.getBoundingClientRect();
  boundary.value = 100 * (event.clientX - box.left) / box.width;
  show();
}

for (const tile of document.querySelectorAll("figure")) {
  tile.querySelector("button").addEventListener("click", () => open(tile));
}
for (const control of [boundary, ...sides]) control.addEventListener("input", show);
dialog.querySelector(".choices button").addEventListener("click", () => {
  [sides[0].selectedIndex, sides[1].selectedIndex] = [sides[1].selectedIndex, sides[0].selectedIndex];
  show();
});
view.addEventListener("pointerdown", (event) => { view.setPointerCapture(event.pointerId); drag(event); });
view.addEventListener("pointermove", drag);
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });

// Open all tables before printing, because they cannot be opened on paper.
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((each) => { each.open = true; }));
