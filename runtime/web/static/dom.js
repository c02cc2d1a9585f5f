// Creates and changes elements. Text is always set as text, never as markup: names come from users.

export const $ = (id) => document.getElementById(id);

const SVG = 'http://www.w3.org/2000/svg';

// Control characters and marks that turn the direction of text: names may hold them, and would look like other names.
const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;
/** Return text in which every character can be seen; anything else as it is. */
export const visible = (text) =>
  typeof text === 'string'
    ? text.replace(HIDDEN, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`)
    : text;
const SHOWN = new Set(['title', 'alt', 'aria-label', 'aria-valuetext', 'placeholder']);

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? '' : SHOWN.has(name) ? visible(value) : value);
  }
  node.append(...children.map(visible));
  return node;
}

export const el = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
export const svg = (tag, attributes = {}, ...children) =>
  fill(document.createElementNS(SVG, tag), attributes, children);

// Each of these writes only what has changed: writing the same value again would still cost a layout.
export function setText(node, text) {
  const shown = visible(text);
  if (node.textContent !== shown) node.textContent = shown;
}
export function setClass(node, name, on) {
  if (node.classList.contains(name) !== on) node.classList.toggle(name, on);
}
export function setHidden(node, hidden) {
  if (node.hidden !== hidden) node.hidden = hidden;
}
export function setStyle(node, name, value) {
  if (node.style.getPropertyValue(name) !== value) node.style.setProperty(name, value);
}
export function setAttribute(node, name, value) {
  const shown = SHOWN.has(name) ? visible(value) : value;
  if (node.getAttribute(name) !== shown) node.setAttribute(name, shown);
}
export function setDisabled(node, disabled) {
  if (node.disabled !== disabled) node.disabled = disabled;
}

/**
 * Give parent one child for each item, in order; an element stays as long as its key does.
 * make(item) returns a new element; update(element, item) brings it up to date.
 */
export function keyed(parent, items, keyOf, make, update) {
  const old = parent.keyedChildren ?? new Map();
  const now = new Map(items.map((item) => [keyOf(item), null]));
  // Elements are removed first: those that stay are then not moved, and keep the focus.
  for (const [key, node] of old) if (!now.has(key)) node.remove();
  let at = parent.firstElementChild;
  for (const item of items) {
    const key = keyOf(item);
    const node = old.get(key) ?? make(item);
    now.set(key, node);
    update(node, item);
    if (node === at) at = at.nextElementSibling;
    else parent.insertBefore(node, at);
  }
  parent.keyedChildren = now;
}

/** Set the options of a select, [{value, label}]; the chosen one stays chosen if it is still among them. */
export function setOptions(select, options) {
  const signature = JSON.stringify(options);
  if (select.optionsAre === signature) return;
  select.optionsAre = signature;
  const chosen = select.value;
  select.replaceChildren(...options.map(({ value, label }) => el('option', { value }, label)));
  if (options.some(({ value }) => value === chosen)) select.value = chosen;
}

const STEPS = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -Infinity, End: Infinity };

/**
 * Let Tab stop at only one of the children that match; arrow keys, Home and End move between them.
 * Returns a function to call after children have changed.
 */
export function roving(container, selector) {
  const stopAt = (node) => {
    container.querySelector(`${selector}[tabindex="0"]`)?.setAttribute('tabindex', '-1');
    node.setAttribute('tabindex', '0');
  };
  container.addEventListener('keydown', (event) => {
    const step = STEPS[event.key];
    const from = event.target.closest?.(selector);
    if (!step || !from || event.ctrlKey || event.metaKey || event.altKey) return;
    const all = [...container.querySelectorAll(selector)];
    const to = all[Math.max(0, Math.min(all.length - 1, all.indexOf(from) + step))];
    event.preventDefault();
    stopAt(to);
    to.focus();
  });
  container.addEventListener('focusin', (event) => {
    const node = event.target.closest?.(selector);
    if (node) stopAt(node);
  });
  return () => {
    const nodes = container.querySelectorAll(selector);
    if (nodes.length && !container.querySelector(`${selector}[tabindex="0"]`)) nodes[0].setAttribute('tabindex', '0');
  };
}

/** Let files be dropped on zone; give(files) is called with them. */
export function dropZone(zone, give) {
  let depth = 0;
  zone.addEventListener('dragenter', () => zone.classList.toggle('over', ++depth > 0));
  zone.addEventListener('dragleave', () => zone.classList.toggle('over', --depth > 0));
  zone.addEventListener('dragover', (event) => event.preventDefault());
  zone.addEventListener('drop', (event) => {
    event.preventDefault();
    depth = 0;
    zone.classList.remove('over');
    if (event.dataTransfer.files.length) give([...event.dataTransfer.files]);
  });
}
