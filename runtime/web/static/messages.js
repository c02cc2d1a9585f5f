// The one line that says what went wrong, and the wrapper around everything that an operator starts.

import { $ } from './dom.js';

export function say(line) {
  $('error').textContent = line;
  $('error-line').hidden = line === '';
}

export const clear = () => say('');

/** Run an action of the operator's: the line is cleared first, and shows the reason if it fails. */
export async function act(action) {
  clear();
  try {
    return await action();
  } catch (error) {
    if (error.name === 'AbortError' || error.status === 401) return undefined;
    say(error.message);
    if (error.status === undefined) console.error(error);
    return undefined;
  }
}

/** The same as a listener; the button cannot be pressed again until it is done. */
export function button(node, action) {
  node.addEventListener('click', async () => {
    if (node.getAttribute('aria-busy') === 'true') return;
    node.setAttribute('aria-busy', 'true');
    await act(() => action(node));
    node.removeAttribute('aria-busy');
  });
  return node;
}

/** A button for what cannot be undone asks once more, by its own text, within four seconds. */
export function careful(node, question, action) {
  const text = node.textContent;
  let timer = 0;
  const calm = () => {
    clearTimeout(timer);
    timer = 0;
    node.textContent = text;
    node.classList.remove('asking');
  };
  button(node, async () => {
    if (timer) {
      calm();
      await action();
      return;
    }
    node.textContent = question;
    node.classList.add('asking');
    timer = setTimeout(calm, 4000);
  });
  node.addEventListener('blur', () => timer && calm());
  return node;
}

export function setUpMessages() {
  $('error-close').addEventListener('click', clear);
}
