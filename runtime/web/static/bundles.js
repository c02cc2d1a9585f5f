// Lists the bundles; each can be served, downloaded, looked at and deleted.

import { call, path, request } from './api.js';
import { $, el, keyed, setClass, setDisabled, setHidden, setText } from './dom.js';
import { count, mb } from './format.js';
import { button, careful } from './messages.js';
import { showPlan } from './plan.js';
import { state, take, watch } from './state.js';

async function serve(name) {
  setText($('bundle-state'), `Starting to serve ${name} …`);
  try {
    take('status', await call('PUT', '/api/served', { json: { bundle: name } }));
    setText($('bundle-state'), `${name} is served.`);
    showPlan('served');
  } catch (error) {
    setText($('bundle-state'), '');
    throw error;
  }
}

async function download(name) {
  setText($('bundle-state'), `Downloading ${name} …`);
  try {
    const response = await request('GET', `${path('bundles', name)}/archive`);
    const address = URL.createObjectURL(await response.blob());
    el('a', { href: address, download: `${name}.tar` }).click();
    setTimeout(() => URL.revokeObjectURL(address), 60000);
    setText($('bundle-state'), `${name}.tar is in your downloads.`);
  } catch (error) {
    setText($('bundle-state'), '');
    throw error;
  }
}

function look(name) {
  showPlan(`bundle:${name}`);
  $('plan-section').scrollIntoView();
  $('plan-source').focus({ preventScroll: true });
}

function makeRow({ name }) {
  const action = (kind, text) =>
    el('button', { type: 'button', 'data-action': kind, 'aria-label': `${text} ${name}` }, text);
  const parts = {
    facts: el('p', { class: 'hint' }),
    badge: el('span', { class: 'badge', 'data-word': 'online' }, 'served'),
    serve: button(action('serve', 'Serve'), () => serve(name)),
    remove: careful(action('delete', 'Delete'), 'Delete it?', () => call('DELETE', path('bundles', name))),
  };
  parts.remove.classList.add('danger');
  const row = el(
    'li',
    { class: 'bundle', 'data-bundle': name },
    el('div', { class: 'bundle-head' }, el('h3', {}, name), parts.badge),
    parts.facts,
    el(
      'p',
      { class: 'buttons' },
      parts.serve,
      button(action('download', 'Download'), () => download(name)),
      button(action('plan', 'Partitions'), () => look(name)),
      parts.remove,
    ),
  );
  row.parts = parts;
  return row;
}

function updateRow({ parts }, bundle) {
  const target = bundle.target === 'custom' ? '' : ` for ${bundle.target}`;
  const size = `${mb(bundle.size_bytes)} MB, budget ${mb(bundle.budget_bytes)} MB`;
  setText(parts.facts, `${bundle.model}${target}: ${count(bundle.steps, 'step')}, ${size}`);
  setHidden(parts.badge, !bundle.served);
  setDisabled(parts.serve, bundle.served);
  setDisabled(parts.remove, bundle.served);
  setClass(parts.serve, 'primary', !bundle.served);
}

function draw() {
  keyed($('bundles'), state.bundles, ({ name }) => name, makeRow, updateRow);
  setHidden($('no-bundles'), state.bundles.length > 0);
}

export function setUpBundles() {
  watch(['library'], draw);
}
