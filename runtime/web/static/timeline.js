// Where a job's time went: a row for each board that it went to, with link there, computing, link back.

import { $, el, keyed, roving, setAttribute, setClass, setHidden, setStyle, setText } from './dom.js';
import { steps as stepsText, sum, time } from './format.js';
import { chosenJob } from './jobs.js';
import { state, watch } from './state.js';

const KINDS = { there: 'link there', computing: 'computing', back: 'link back', open: 'not known yet' };
const ROOM_FOR_TEXT = 0.16; // of the width

let keepTabStop = () => {};
let pointed = null; // the row whose numbers are shown

/** The parts of a span, [{kind, from, to}] in seconds; what is not known yet is one open part until now. */
export function partsOf(span, now) {
  const { sent_s: sent, begun_s: begun, compute_s: compute, done_s: done } = span;
  if (begun === null) return [{ kind: 'open', from: sent, to: Math.max(now, sent) }];
  const end = done ?? Math.max(now, begun);
  const back = { kind: done === null ? 'open' : 'back', from: begun, to: end };
  if (compute === null) return [{ kind: 'open', from: sent, to: begun }, back];
  const start = Math.max(sent, begun - compute); // clocks of two boards may disagree by a little
  return [{ kind: 'there', from: sent, to: start }, { kind: 'computing', from: start, to: begun }, back];
}

/** Name of a span: the steps if the share is still known, else its first and last partition. */
function titleOf(span, job) {
  const share =
    job === null
      ? null
      : state.status?.shares.find(
          ({ number, first, last }) => number === span.share && first === span.first && last === span.last,
        );
  if (share) return stepsText(share.start, share.stop);
  return span.first === span.last ? span.first : `${span.first} to ${span.last}`;
}

function describe(span, parts, title) {
  const pieces = parts.map(({ kind, from, to }) => `${KINDS[kind]} ${time(to - from)}`);
  const steps =
    span.steps_s.length > 1 ? `; its ${span.steps_s.length} steps took ${span.steps_s.map(time).join(', ')}` : '';
  return `${title} on ${span.worker}, ${time(parts[0].from)} to ${time(parts.at(-1).to)}: ${pieces.join(', ')}${steps}.`;
}

function makeRow() {
  const parts = { title: el('span', { class: 'span-title' }), track: el('span', { class: 'track' }) };
  const node = el('div', { class: 'span', role: 'img', tabindex: '-1' }, parts.title, parts.track);
  node.parts = parts;
  const point = () => {
    pointed = node;
    setText($('timeline-numbers'), node.getAttribute('aria-label'));
  };
  node.addEventListener('pointerenter', point);
  node.addEventListener('focus', point);
  return node;
}

function updateRow(node, { span, job, now, scale }) {
  const parts = partsOf(span, now);
  const title = titleOf(span, job);
  setText(node.parts.title, `${span.worker}: ${title}`);
  setAttribute(node, 'aria-label', describe(span, parts, title));
  if (pointed === node) setText($('timeline-numbers'), node.getAttribute('aria-label'));
  keyed(
    node.parts.track,
    parts.map((part, index) => ({ ...part, index })),
    ({ index }) => index,
    () => el('span', {}),
    (piece, { kind, from, to }) => {
      const width = (to - from) / scale;
      setAttribute(piece, 'class', `piece ${kind}`);
      setStyle(piece, 'left', `${((from / scale) * 100).toFixed(2)}%`);
      setStyle(piece, 'width', `${(width * 100).toFixed(2)}%`);
      setText(piece, width > ROOM_FOR_TEXT ? time(to - from) : '');
    },
  );
}

function total(job) {
  const of = (kind) =>
    sum(
      job.spans.flatMap((span) =>
        partsOf(span, 0)
          .filter((part) => part.kind === kind)
          .map(({ from, to }) => to - from),
      ),
    );
  const links = `Links there ${time(of('there'))}, computing ${time(of('computing'))}, links back ${time(of('back'))}`;
  return `${links} in all. Point at a row, or go there with the arrow keys, for its numbers.`;
}

let frame = null; // legend, rows, axis, numbers: made once

function makeFrame() {
  const key = (kind) => [el('span', { class: `key ${kind}` }), ` ${KINDS[kind]} `];
  frame = {
    legend: el('p', { class: 'legend' }, ...key('there'), ...key('computing'), ...key('back')),
    rows: el('div', { class: 'spans' }),
    axis: el('div', { class: 'axis', 'aria-hidden': 'true' }, el('span', {}, '0'), el('span'), el('span')),
    numbers: el('p', { id: 'timeline-numbers', class: 'hint numbers', role: 'status' }),
  };
  $('timeline').append(frame.legend, frame.rows, frame.axis, frame.numbers);
  keepTabStop = roving(frame.rows, '.span');
}

let shownJob = null;

function draw() {
  if (!frame) makeFrame();
  const job = chosenJob();
  const spans = job?.spans ?? [];
  setHidden(frame.legend, !spans.length);
  setHidden(frame.axis, !spans.length);
  if (!spans.length) {
    frame.rows.replaceChildren();
    frame.rows.keyedChildren = new Map();
    setText(
      frame.numbers,
      job
        ? job.state === 'waiting'
          ? 'It waits for its turn.'
          : 'No board has got it yet.'
        : 'The times of a job appear here.',
    );
    return;
  }
  const ends = spans.flatMap(({ sent_s, begun_s, done_s }) => [sent_s, begun_s ?? 0, done_s ?? 0]);
  const now = Math.max(job.seconds ?? 0, ...ends);
  const scale = Math.max(now, 1e-9);
  if (shownJob !== job.id) {
    shownJob = job.id;
    pointed = null;
  }
  const items = spans.map((span, index) => ({ span, index, job, now, scale }));
  keyed(frame.rows, items, ({ index }) => index, makeRow, updateRow);
  setText(frame.axis.children[1], time(scale / 2));
  setText(frame.axis.children[2], time(scale));
  if (!pointed) setText(frame.numbers, total(job));
  setClass(frame.rows, 'many', spans.length > 12);
  keepTabStop();
}

export function setUpTimeline() {
  watch(['jobs'], draw);
}
