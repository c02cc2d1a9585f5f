// Shows what codes replaced, whose answers were late, withdrawn or wrong, and which boards may be lost;
// offers exact answers.

import { $, el, keyed, setHidden, setText } from './dom.js';

const total = (counts) => Object.values(counts).reduce((sum, count) => sum + count, 0);

const named = (counts) => Object.entries(counts).map(([name, count]) => `${name} ${count}`).join(', ');

export function drawCodes(codes) {
  setHidden($('codes'), !codes);
  setHidden($('exact-choice'), !codes);
  if (!codes) return;
  const parts = [`${total(codes.decoded)} decoded`];
  if (total(codes.late)) parts.push(`late: ${named(codes.late)}`);
  if (total(codes.withdrawn)) parts.push(`withdrawn: ${named(codes.withdrawn)}`);
  if (total(codes.wrong)) parts.push(`wrong: ${named(codes.wrong)}`);
  setText($('codes-now'), `Codes: ${parts.join('; ')}; ${codes.coverage[0] ?? 'nothing may be lost'}`);
  keyed(
    $('codes-coverage'),
    codes.coverage.map((text, number) => ({ text, number })),
    ({ number }) => number,
    () => el('li'),
    (item, { text }) => setText(item, text),
  );
}
