// Draws the graph that layout.js places; the user can move and zoom it. Names are text, never markup.
(() => {
  const data = JSON.parse(document.getElementById('data').textContent);
  const box = document.getElementById('graph');
  const detail = document.getElementById('detail');
  const NODE = { width: 116, height: 46 }; // pixels at full size
  // A phone's frame is taller than wide: the graph gets rows as wide as the frame's shape asks for.
  const PHONE = 560; // pixels
  const CELL = { width: 146, height: 98 }; // a node with the space around it
  const shape = (box.clientWidth / box.clientHeight) * data.nodes.length * CELL.width * CELL.height;
  const drawing = layout(data.nodes.length, data.edges, NODE, box.clientWidth < PHONE ? Math.sqrt(shape) : null);
  const FAR = 0.42; // below this scale, text cannot be read
  const clip = (text, length) => (text.length > length ? `…${text.slice(1 - length)}` : text);

  const brief = (text, length) => (text.length > length ? `${text.slice(0, length - 1)}…` : text);

  const svg = (tag, attributes = {}, text = '') => {
    const element = document.createElementNS('http://www.w3.org/2000/svg', tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    if (text) element.textContent = text;
    return element;
  };
  const el = (tag, text = '', ...children) => {
    const element = document.createElement(tag);
    element.textContent = text;
    element.append(...children);
    return element;
  };

  // The drawing.
  const picture = svg('svg', { 'aria-hidden': 'true' });
  const marker = svg('marker', {
    id: 'arrow', viewBox: '0 0 8 8', refX: 8, refY: 4, markerWidth: 8, markerHeight: 8,
    markerUnits: 'userSpaceOnUse', orient: 'auto',
  });
  marker.append(svg('path', { d: 'M0 0L8 4L0 8z', class: 'arrow' }));
  const definitions = svg('defs');
  definitions.append(marker);
  const all = svg('g');
  const lines = data.edges.map(({ from, to, label }, index) => {
    const line = svg('path', { class: 'edge', d: drawing.paths[index], 'marker-end': 'url(#arrow)' });
    line.append(svg('title', {}, `${data.nodes[from].name} to ${data.nodes[to].name}: ${label}`));
    return line;
  });
  const nodes = data.nodes.map((node, index) => {
    const shard = node.shard ? ' shard' : '';
    const group = svg('g', {
      class: `node${node.part === null ? ' bare' : ''}${shard}`,
      'data-node': index,
      transform: `translate(${drawing.places[index].join(' ')})`,
    });
    group.style.setProperty('--hue', String(((node.part ?? 0) * 137.508) % 360));
    const part = (node.part === null ? '' : `P${node.part}`) + (node.shard ? ` shard ${node.shard}` : '');
    group.append(
      svg('title', {}, `${node.name} (${node.kind}) ${part}`),
      svg('rect', { ...NODE, rx: 6 }),
      svg('text', { x: 7, y: 14, class: 'type' }, brief(node.kind, node.shard ? 13 : 13 - part.length)),
      svg('text', { x: NODE.width - 6, y: node.shard ? 41 : 13, class: 'part' }, part),
      svg('text', { x: 7, y: 28 }, clip(node.name, 15)),
    );
    return group;
  });
  all.append(...lines, ...nodes);
  picture.append(definitions, all);
  box.append(picture);

  // A small graph needs a low frame.
  box.style.maxHeight = `${drawing.height * Math.min(1.5, box.clientWidth / drawing.width)}px`;

  // The view: the point of the drawing in the upper left corner, and the pixels per unit of the drawing.
  const view = { x: 0, y: 0, scale: 1 };
  const size = () => ({ width: box.clientWidth, height: box.clientHeight });
  const least = () => Math.min(size().width / drawing.width, size().height / drawing.height, 1) / 1.5;
  const show = () => {
    all.setAttribute('transform', `scale(${view.scale}) translate(${-view.x} ${-view.y})`);
    all.classList.toggle('far', view.scale < FAR);
    box.dataset.scale = view.scale.toFixed(4);
  };
  const fit = () => {
    const { width, height } = size();
    view.scale = Math.min(width / drawing.width, height / drawing.height, 1.5);
    view.x = (drawing.width - width / view.scale) / 2;
    view.y = (drawing.height - height / view.scale) / 2;
    show();
  };
  const zoom = (factor, x = size().width / 2, y = size().height / 2) => {
    const scale = Math.min(8, Math.max(least(), view.scale * factor));
    view.x += x / view.scale - x / scale;
    view.y += y / view.scale - y / scale;
    view.scale = scale;
    show();
  };
  const move = (x, y) => {
    view.x -= x / view.scale;
    view.y -= y / view.scale;
    show();
  };
  const centre = ([x, y]) => {
    const { width, height } = size();
    view.scale = Math.max(view.scale, 1);
    view.x = x + NODE.width / 2 - width / view.scale / 2;
    view.y = y + NODE.height / 2 - height / view.scale / 2;
    show();
  };

  // The details of the chosen node.
  const list = (tag, texts) => el(tag, '', ...texts.map((text) => el('li', text)));
  const choose = (index) => {
    const node = data.nodes[index];
    nodes.forEach((each, place) => each.classList.toggle('chosen', place === index));
    data.edges.forEach(({ from, to }, place) => lines[place].classList.toggle('chosen', from === index || to === index));
    const near = (mine, other) =>
      data.edges.filter((edge) => edge[mine] === index).map((edge) => `${data.nodes[edge[other]].name}, ${edge.label}`);
    const [before, after] = [near('to', 'from'), near('from', 'to')];
    const facts = [`type ${node.kind}`, ...node.notes];
    if (node.part !== null) facts.unshift(`partition P${node.part}: ${data.parts[node.part]}`);
    if (node.shard) facts.unshift(`shard ${node.shard}`);
    detail.replaceChildren(el('h3', node.name), list('ul', facts));
    if (before.length) detail.append(el('h4', 'from'), list('ul', before));
    if (after.length) detail.append(el('h4', 'to'), list('ul', after));
    if (node.members.length) detail.append(el('h4', `${node.members.length} operators`), list('ol', node.members));
  };

  // One pointer drags, two pinch; a press without a move chooses a node.
  const pointers = new Map();
  let moved = 0;
  picture.addEventListener('pointerdown', (event) => {
    pointers.set(event.pointerId, [event.clientX, event.clientY]);
    moved = 0;
  });
  picture.addEventListener('pointermove', (event) => {
    const last = pointers.get(event.pointerId);
    if (!last) return;
    const now = [event.clientX, event.clientY];
    moved += Math.hypot(now[0] - last[0], now[1] - last[1]);
    if (moved > 4 && !picture.hasPointerCapture(event.pointerId)) picture.setPointerCapture(event.pointerId);
    picture.classList.toggle('moving', moved > 4);
    if (pointers.size === 1) move(now[0] - last[0], now[1] - last[1]);
    else {
      const other = [...pointers].find(([id]) => id !== event.pointerId)[1];
      const gap = (point) => Math.max(1, Math.hypot(point[0] - other[0], point[1] - other[1]));
      const corner = box.getBoundingClientRect();
      zoom(gap(now) / gap(last), other[0] - corner.left, other[1] - corner.top);
    }
    pointers.set(event.pointerId, now);
  });
  const lift = (event) => {
    pointers.delete(event.pointerId);
    picture.classList.remove('moving');
  };
  picture.addEventListener('pointerup', lift);
  picture.addEventListener('pointercancel', lift);
  picture.addEventListener('click', (event) => {
    const node = event.target.closest('.node');
    if (node && moved <= 4) choose(Number(node.dataset.node));
  });
  box.addEventListener(
    'wheel',
    (event) => {
      event.preventDefault();
      const corner = box.getBoundingClientRect();
      zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0016)), event.clientX - corner.left, event.clientY - corner.top);
    },
    { passive: false },
  );

  const STEP = 60;
  const keys = {
    '+': () => zoom(1.25), '=': () => zoom(1.25), '-': () => zoom(0.8), 0: fit,
    ArrowLeft: () => move(STEP, 0), ArrowRight: () => move(-STEP, 0),
    ArrowUp: () => move(0, STEP), ArrowDown: () => move(0, -STEP),
  };
  box.addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  });
  document.getElementById('zoom-in').addEventListener('click', () => zoom(1.4));
  document.getElementById('zoom-out').addEventListener('click', () => zoom(1 / 1.4));
  document.getElementById('zoom-fit').addEventListener('click', fit);

  // Enter in the search field goes to the next match.
  const field = document.getElementById('find');
  let [searched, next] = ['', 0];
  field.addEventListener('keydown', (event) => {
    if (event.key !== 'Enter') return;
    const text = field.value.trim().toLowerCase();
    const matches = (node) => [node.name, node.kind, ...node.members].some((name) => name.toLowerCase().includes(text));
    const hits = data.nodes.flatMap((node, index) => (text && (matches(node) || `p${node.part}` === text) ? [index] : []));
    next = text === searched ? next + 1 : 0;
    searched = text;
    document.getElementById('found').textContent = hits.length ? `${(next % hits.length) + 1} of ${hits.length}` : 'none';
    if (!hits.length) return;
    choose(hits[next % hits.length]);
    centre(drawing.places[hits[next % hits.length]]);
  });

  let width = 0;
  new ResizeObserver(() => {
    if (width === 0 && box.clientWidth) fit();
    width = box.clientWidth;
  }).observe(box);
})();
