// The operator's choice of boards for each share. What is chosen stays a draft until it is applied.

import { ApiError, call } from './api.js';
import { $, el, keyed, setClass, setDisabled, setText } from './dom.js';
import { steps } from './format.js';
import { button } from './messages.js';
import { changed, isGone, state, take, watch } from './state.js';

const draft = new Map(); // share number -> Set of board names
let draftOf = ''; // the shares that it was made for

const homesOf = (share) =>
  draft.get(share.number) ?? new Set(Object.keys(share.homes).filter((name) => share.homes[name] !== 'lost'));

function choose(share, name, on) {
  const names = new Set(homesOf(share));
  if (on) names.add(name);
  else names.delete(name);
  draft.set(share.number, names);
  changed('draft');
}

function makeShare(share) {
  const summary = el('summary', {});
  const boxes = el('div', {
    class: 'boxes',
    role: 'group',
    'aria-label': `Boards for ${steps(share.start, share.stop)}`,
  });
  const node = el(
    'details',
    { class: 'share-choice', 'data-share': share.number, ontoggle: () => changed('draft') },
    summary,
    boxes,
  );
  node.parts = { summary, boxes };
  return node;
}

function makeBox(share, name) {
  const box = el('input', { type: 'checkbox', value: name });
  box.addEventListener('change', () => choose(box.share, name, box.checked));
  const label = el('label', {}, box, el('span'));
  label.parts = { box, text: label.lastChild };
  return label;
}

function updateShare(node, share) {
  const { summary, boxes } = node.parts;
  const chosen = homesOf(share);
  const names = [...chosen].join(', ') || 'no board';
  setText(summary, `${steps(share.start, share.stop)}: ${names}${draft.has(share.number) ? ' (changed)' : ''}`);
  setClass(node, 'changed', draft.has(share.number));
  if (!node.open) return; // 20 boards times 200 shares: fill in only what is looked at
  keyed(
    boxes,
    state.status.workers,
    ({ name }) => name,
    ({ name }) => makeBox(share, name),
    (label, worker) => {
      const { box, text } = label.parts;
      box.share = share;
      if (box.checked !== chosen.has(worker.name)) box.checked = chosen.has(worker.name);
      setText(text, `${worker.name}${isGone(worker) ? ' (gone)' : worker.drained ? ' (drained)' : ''}`);
    },
  );
}

function draw() {
  if (!state.status) return;
  const { shares, bundle } = state.status;
  const signature = `${bundle} ${shares.map(({ number, start, stop }) => `${number}:${start}-${stop}`).join()}`;
  if (signature !== draftOf) {
    if (draft.size)
      setText($('placement-state'), 'The shares were cut anew: your changes no longer fit and were dropped.');
    draft.clear();
    draftOf = signature;
  }
  for (const id of ['place', 'place-reset']) setDisabled($(id), draft.size === 0);
  setDisabled($('place-automatic'), shares.length === 0);
  if (!$('placement').open) return;
  keyed($('shares'), shares, ({ number, start, stop }) => `${number} ${start} ${stop}`, makeShare, updateShare);
}

async function put(homes, said) {
  setText($('placement-state'), 'Placing …');
  try {
    const status = await call('PUT', '/api/placement', { json: { homes } });
    draft.clear();
    take('status', status);
    setText($('placement-state'), said);
  } catch (error) {
    setText($('placement-state'), '');
    throw error;
  } finally {
    changed('draft');
  }
}

async function apply() {
  const homes = {};
  for (const share of state.status.shares) {
    homes[share.number] = [...homesOf(share)];
    if (!homes[share.number].length)
      throw new ApiError(0, `Choose at least one board for ${steps(share.start, share.stop)}.`);
  }
  await put(homes, 'Placed as you chose.');
}

export function setUpPlacement() {
  watch(['status', 'draft'], draw);
  $('placement').addEventListener('toggle', () => changed('draft'));
  button($('place'), apply);
  button($('place-automatic'), () => put(null, 'The manager places the shares itself.'));
  button($('place-reset'), () => {
    draft.clear();
    setText($('placement-state'), '');
    changed('draft');
  });
}
