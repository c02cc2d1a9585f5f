// A model on its way to the manager: one .onnx and its external data files, with progress.

import { ApiError, path, upload } from './api.js';
import { $, dropZone, setText } from './dom.js';
import { mb, sum } from './format.js';
import { act } from './messages.js';

const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/;
const isModel = (file) => file.name.toLowerCase().endsWith('.onnx');

/** The name of the model that the files belong to: the .onnx file's, or the one chosen, which gets external data. */
function nameFor(files, chosen) {
  const models = files.filter(isModel);
  if (models.length > 1) throw new ApiError(0, 'One model at a time: these are several .onnx files.');
  if (!models.length && !chosen)
    throw new ApiError(0, 'There is no .onnx file among these. External data comes with its model, or after it.');
  for (const { name } of files)
    if (!NAME.test(name))
      throw new ApiError(0, `${name}: rename it; names are letters, digits, dots, hyphens and underscores.`);
  return models.length ? models[0].name.slice(0, -'.onnx'.length) || 'model' : chosen;
}

async function sendAll(files, model, signal) {
  const total = sum(files.map((file) => file.size));
  let before = 0;
  for (const file of files) {
    await upload(path('models', model, file.name), file, {
      signal,
      progress(sent) {
        const done = before + Math.min(sent, file.size);
        $('upload-progress').value = total ? done / total : 1;
        setText($('upload-amount'), `${file.name}: ${mb(done)} of ${mb(total)} MB`);
      },
    });
    before += file.size;
  }
}

let control = null;

async function send(files, chosen, whenThere) {
  if (control) throw new ApiError(0, 'An upload is under way. Wait, or cancel it.');
  const model = nameFor(files, chosen);
  control = new AbortController();
  $('upload').hidden = false;
  $('upload-progress').value = 0;
  setText($('upload-state'), '');
  try {
    await sendAll(
      [...files].sort((a, b) => isModel(b) - isModel(a)),
      model,
      control.signal,
    );
    setText($('upload-state'), `${model} is there.`);
    whenThere(model);
  } catch (error) {
    setText($('upload-state'), error.name === 'AbortError' ? 'Cancelled.' : 'Not uploaded.');
    throw error;
  } finally {
    control = null;
    $('upload').hidden = true;
  }
}

/** chosen() is the name of the model shown; whenThere(name) is called after an upload. */
export function setUpUpload(chosen, whenThere) {
  const start = (files) => act(() => send(files, chosen(), whenThere));
  const input = $('model-files');
  input.addEventListener('change', () => {
    if (input.files.length) start([...input.files]);
    input.value = ''; // the same file may be chosen again
  });
  dropZone($('drop-model'), start);
  $('upload-cancel').addEventListener('click', () => control?.abort());
}
