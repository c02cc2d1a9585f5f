// Shows errors in one line at the top of the page, and runs the actions that the operator starts.

import { $, setText } from './dom.js';

export function say(line) {
  setText($('error'), line);
  $('error-line').hidden = line === '';
}

export const clear = () => say('');

/** Run an action of the operator; the line is cleared first, and shows the reason if the action fails. */
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

/** Run an action whenever the button is pressed; presses while the action runs are ignored. */
export function button(node, action) {
  node.addEventListener('click', async () => {
    if (node.getAttribute('aria-busy') === 'true') return;
    node.setAttribute('aria-busy', 'true');
    await act(() => action(node));
    node.removeAttribute('aria-busy');
  });
  return node;
}

/** Run an action that cannot be undone: the button asks the question, and must be pressed again within four seconds. */
export function careful(node, question, action) {
  const text = node.textContent;
  let timer = 0;
  const reset = () => {
    clearTimeout(timer);
    timer = 0;
    node.textContent = text;
    node.classList.remove('asking');
  };
  button(node, async () => {
    if (timer) {
      reset();
      await action();
      return;
    }
    setText(node, question);
    node.classList.add('asking');
    timer = setTimeout(reset, 4000);
  });
  node.addEventListener('blur', () => timer && reset());
  return node;
}

export function setUpMessages() {
  $('error-close').addEventListener('click', clear);
}
