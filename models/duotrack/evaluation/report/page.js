"use strict";
// Everything is readable without this script: it switches the theme, and sorts and filters the tables.

const THEME = "duotrack-report-theme";

// a page from a file may be without storage
function remembered() {
  try {
    return localStorage.getItem(THEME);
  } catch {
    return null;
  }
}

function remember(theme) {
  try {
    localStorage.setItem(THEME, theme);
  } catch {
    // then it lasts until the page is left
  }
}

// before the page is drawn, so that it does not flash
if (["light", "dark"].includes(remembered())) document.documentElement.dataset.theme = remembered();

function enableTheme(button) {
  button.hidden = false;
  button.addEventListener("click", () => {
    const root = document.documentElement;
    const now = root.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
    root.dataset.theme = now === "dark" ? "light" : "dark";
    remember(root.dataset.theme);
  });
}

function compare(first, second) {
  const numbers = [Number(first), Number(second)];
  return numbers.some(Number.isNaN) ? first.localeCompare(second, undefined, { numeric: true }) : numbers[0] - numbers[1];
}

function sortBy(table, header) {
  const column = header.cellIndex;
  const direction = header.getAttribute("aria-sort") === "ascending" ? -1 : 1;
  for (const other of table.querySelectorAll("th[aria-sort]")) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", direction === 1 ? "ascending" : "descending");
  const body = table.tBodies[0];
  const value = (row) => row.cells[column].dataset.value ?? "";
  const rows = [...body.rows].sort((first, second) => {
    const values = [value(first), value(second)];
    // what is missing comes last, either way
    if (values.includes("")) return (values[0] === "") - (values[1] === "");
    return direction * compare(...values);
  });
  body.append(...rows);
}

function enableSorting(table) {
  for (const button of table.tHead.querySelectorAll("button")) {
    button.addEventListener("click", () => sortBy(table, button.closest("th")));
  }
}

function filter(form, table) {
  const part = (form.elements.name?.value ?? "").trim().toLowerCase();
  const tag = form.elements.tag?.value ?? "";
  let shown = 0;
  for (const row of table.tBodies[0].rows) {
    const named = row.cells[0].dataset.value.toLowerCase().includes(part);
    const tagged = tag === "" || [...row.querySelectorAll(".tag")].some((chip) => chip.textContent === tag);
    row.hidden = !(named && tagged);
    shown += row.hidden ? 0 : 1;
  }
  const all = table.tBodies[0].rows.length;
  form.querySelector("output").value = shown === all ? `${all} ${form.dataset.rows}` : `${shown} of ${all} ${form.dataset.rows}`;
}

function enableControls(form) {
  const table = document.getElementById(form.dataset.table);
  form.hidden = form.elements.length === 0;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", () => {
    if (form.elements.figure) showFigure(table, form.elements.figure.value);
    if (form.querySelector("output")) filter(form, table);
  });
  form.reset();
  showFigure(table, "0");
}

// the rows go by the same tracker's column of the new figure
function showFigure(table, figure) {
  if (table.dataset.shown === figure) return;
  const before = table.dataset.shown;
  table.dataset.shown = figure;
  const sorted = table.querySelector("th[aria-sort]");
  if (before === undefined || !sorted.classList.contains(`f${before}`)) return;
  const place = [...table.querySelectorAll(`thead tr:last-child .f${before}`)].indexOf(sorted);
  const header = table.querySelectorAll(`thead tr:last-child .f${figure}`)[place];
  if (sorted.getAttribute("aria-sort") === "descending") header.setAttribute("aria-sort", "ascending");
  sortBy(table, header);
}

document.addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll("button.theme").forEach(enableTheme);
  document.querySelectorAll("table.sortable").forEach(enableSorting);
  document.querySelectorAll("form.controls").forEach(enableControls);
});
