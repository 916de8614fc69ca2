// Adds to a report that reads without it: themes, folding, and charts whose arms, metric, smoothing and seeds one chooses.
// Everything comes from this file; names are set as text, never as markup.
(function () {
  'use strict';
  var data = JSON.parse(document.getElementById('ablab-data').textContent);
  var words = data.words;
  var SVG = 'http://www.w3.org/2000/svg';
  var format = new Intl.NumberFormat(data.language, { maximumSignificantDigits: 5 });
  var COLOURS = 8, GRID = 300, SHOWN = 8;

  function make(name, attributes, text) {
    var element = document.createElement(name);
    Object.keys(attributes || {}).forEach(function (key) { element.setAttribute(key, attributes[key]); });
    if (text !== undefined) element.textContent = text;
    return element;
  }
  function draw(parent, name, attributes, text) {
    var element = document.createElementNS(SVG, name);
    Object.keys(attributes || {}).forEach(function (key) { element.setAttribute(key, attributes[key]); });
    if (text !== undefined) element.textContent = text;
    parent.appendChild(element);
    return element;
  }
  function remember(key, value) { try { localStorage.setItem(key, value); } catch (error) { return; } }
  function recall(key) { try { return localStorage.getItem(key); } catch (error) { return null; } }

  // ---- themes and folding
  function tools() {
    var bar = document.querySelector('.tools');
    var root = document.documentElement;
    var themes = ['system', 'light', 'dark'];
    var theme = themes.indexOf(recall('ablab-theme')) < 0 ? 'system' : recall('ablab-theme');
    var button = make('button', { type: 'button' });
    function apply() {
      if (theme === 'system') root.removeAttribute('data-theme'); else root.setAttribute('data-theme', theme);
      button.textContent = { system: '◐ ', light: '☀ ', dark: '☾ ' }[theme] + words[theme];
    }
    button.addEventListener('click', function () {
      theme = themes[(themes.indexOf(theme) + 1) % themes.length];
      remember('ablab-theme', theme);
      apply();
    });
    apply();
    var all = make('button', { type: 'button' }, words.open);
    var opened = false;
    all.addEventListener('click', function () {
      opened = !opened;
      document.querySelectorAll('main details').forEach(function (each) { each.open = opened; });
      all.textContent = opened ? words.fold : words.open;
    });
    bar.append(all, button);
    bar.hidden = false;
  }
  function reveal() {
    var name = location.hash.slice(1);
    var target = name ? document.getElementById(name) : null;
    if (!target) return;
    for (var each = target; each; each = each.parentElement) if (each.tagName === 'DETAILS') each.open = true;
    target.scrollIntoView();
  }

  // ---- numbers
  function linearTicks(low, high, most) {
    var span = high - low;
    if (!(span > 0)) return [low];
    var power = Math.pow(10, Math.floor(Math.log10(span / most)));
    var step = [1, 2, 2.5, 5, 10].map(function (f) { return f * power; }).find(function (s) { return span / s <= most; });
    var found = [];
    for (var k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++) found.push(Number((k * step).toPrecision(10)));
    return found;
  }
  function logTicks(low, high, most) {
    var found = [];
    for (var p = Math.floor(Math.log10(low)); p <= Math.ceil(Math.log10(high)); p++) {
      [1, 2, 5].forEach(function (m) {
        var tick = Number((m * Math.pow(10, p)).toPrecision(10));
        if (tick >= low && tick <= high) found.push(tick);
      });
    }
    if (found.length < 2) return linearTicks(low, high, most);
    if (found.length <= most + 2) return found;
    var tens = found.filter(function (t) { return Math.abs(Math.log10(t) - Math.round(Math.log10(t))) < 1e-9; });
    var chosen = tens.length > 1 ? tens : found;
    return chosen.filter(function (_, i) { return i % Math.ceil(chosen.length / most) === 0; });
  }
  // Mean of the past with weight `amount`, corrected for its start: no smoothing at 0.
  function smooth(ys, amount) {
    if (!amount) return ys;
    var mean = 0, weight = 0;
    return ys.map(function (y) {
      if (y === null) return null;
      mean = amount * mean + (1 - amount) * y;
      weight = amount * weight + (1 - amount);
      return mean / weight;
    });
  }
  function at(line, grid) {
    var xs = [], ys = [], place = 0;
    line.x.forEach(function (x, i) { if (line.s[i] !== null) { xs.push(x); ys.push(line.s[i]); } });
    return grid.map(function (x) {
      while (place + 1 < xs.length && xs[place + 1] <= x) place++;
      if (x <= xs[place] || place + 1 === xs.length) return ys[place];
      return ys[place] + (ys[place + 1] - ys[place]) * (x - xs[place]) / (xs[place + 1] - xs[place]);
    });
  }
  function band(lines) {
    var finite = lines.filter(function (line) { return line.s.some(function (y) { return y !== null; }); });
    if (!finite.length) return [];
    var low = -Infinity, high = Infinity, seen = new Set();
    finite.forEach(function (line) { low = Math.max(low, line.x[0]); high = Math.min(high, line.x[line.x.length - 1]); });
    finite.forEach(function (line) { line.x.forEach(function (x) { if (x >= low && x <= high) seen.add(x); }); });
    var grid = Array.from(seen).sort(function (a, b) { return a - b; });
    if (grid.length > GRID) {
      var whole = grid;
      grid = Array.from({ length: GRID }, function (_, i) { return whole[Math.round(i * (whole.length - 1) / (GRID - 1))]; });
    }
    var columns = finite.map(function (line) { return at(line, grid); });
    return grid.map(function (x, i) {
      var row = columns.map(function (column) { return column[i]; });
      return { x: x, mean: row.reduce(function (a, b) { return a + b; }, 0) / row.length, low: Math.min.apply(null, row), high: Math.max.apply(null, row) };
    });
  }

  // ---- one figure: controls, drawing, readout
  function Figure(element, spec) {
    this.element = element;
    this.spec = spec;
    this.chart = spec.charts[0];
    this.amount = 0;
    this.log = this.chart.log;
    this.each = false;
    this.chosen = new Set(this.chart.arms.slice(0, SHOWN));
    this.box = element.querySelector('.drawing');
    this.caption = element.querySelector('figcaption');
    this.label = element.querySelector('.ylabel');
    this.cursor = null;
    this.controls();
    this.box.classList.add('live');
    this.note = make('div', { class: 'readout', hidden: '' });
    this.said = make('p', { class: 'sr', 'aria-live': 'polite' });
    element.append(this.note, this.said);
    this.draw();
  }
  Figure.prototype.controls = function () {
    var self = this, bar = make('div', { class: 'controls' });
    if (this.spec.charts.length > 1) {
      var metrics = make('select', {});
      this.spec.charts.forEach(function (chart, i) { metrics.append(make('option', { value: i }, chart.metric)); });
      metrics.addEventListener('change', function () {
        self.chart = self.spec.charts[Number(metrics.value)];
        self.log = self.chart.log;
        logarithmic.checked = self.log;
        self.choice();
        self.draw();
      });
      bar.append(labelled(words.metric, metrics));
    }
    if (this.spec.charts.some(function (chart) { return chart.many; })) {
      var range = make('input', { type: 'range', min: 0, max: 0.98, step: 0.02, value: 0 });
      range.addEventListener('input', function () { self.amount = Number(range.value); self.draw(); });
      bar.append(labelled(words.smoothing, range));
    }
    if (this.spec.charts.some(function (chart) { return chart.lines.length > chart.arms.length; })) {
      var seeds = make('select', {});
      seeds.append(make('option', { value: '' }, words.band), make('option', { value: '1' }, words.each));
      seeds.addEventListener('change', function () { self.each = Boolean(seeds.value); self.draw(); });
      bar.append(labelled(words.seeds, seeds));
    }
    var logarithmic = make('input', { type: 'checkbox' });
    logarithmic.checked = this.log;
    logarithmic.addEventListener('change', function () { self.log = logarithmic.checked; self.draw(); });
    bar.append(labelled(words.logarithmic, logarithmic));
    this.arms = make('div', { class: 'choice', role: 'group', 'aria-label': words.arms });
    this.element.insertBefore(bar, this.label);
    this.element.insertBefore(this.arms, this.box.nextSibling);
    this.choice();
  };
  function labelled(text, control) {
    var label = make('label', {}, text + ' ');
    label.append(control);
    return label;
  }
  Figure.prototype.choice = function () {
    var self = this, arms = this.chart.arms;
    this.arms.replaceChildren();
    this.arms.hidden = arms.length < 2;
    if (!arms.some(function (arm) { return self.chosen.has(arm); })) this.chosen = new Set(arms.slice(0, SHOWN));
    if (arms.length > 24) {
      var find = make('input', { type: 'search', placeholder: words.find, 'aria-label': words.find });
      find.addEventListener('input', function () {
        self.arms.querySelectorAll('button[data-arm]').forEach(function (button) {
          button.hidden = !button.textContent.toLowerCase().includes(find.value.toLowerCase());
        });
      });
      this.arms.append(find);
    }
    arms.forEach(function (arm, place) {
      var button = make('button', { type: 'button', 'aria-pressed': String(self.chosen.has(arm)), 'data-arm': place });
      var sample = draw(button, 'svg', { width: 22, height: 8, 'aria-hidden': 'true' });
      draw(sample, 'path', { class: 'line c' + place % COLOURS, d: 'M0 4H22' });
      button.append(document.createTextNode(arm));
      button.addEventListener('click', function () {
        if (self.chosen.has(arm)) self.chosen.delete(arm); else self.chosen.add(arm);
        button.setAttribute('aria-pressed', String(self.chosen.has(arm)));
        self.draw();
      });
      self.arms.append(button);
    });
    if (arms.length > 2) [[words.all, arms], [words.none, []]].forEach(function (pair) {
      var button = make('button', { type: 'button', class: 'set' }, pair[0]);
      button.addEventListener('click', function () { self.chosen = new Set(pair[1]); self.pressed(); self.draw(); });
      self.arms.append(button);
    });
  };
  Figure.prototype.pressed = function () {
    var self = this;
    this.arms.querySelectorAll('button[data-arm]').forEach(function (button) {
      button.setAttribute('aria-pressed', String(self.chosen.has(self.chart.arms[Number(button.dataset.arm)])));
    });
  };
  Figure.prototype.draw = function () {
    var self = this, chart = this.chart;
    var width = Math.max(280, this.box.clientWidth), height = Math.round(Math.max(220, Math.min(330, width * 0.46)));
    var left = 58, right = width > 620 ? 130 : 12, top = 12, bottom = 38;
    this.caption.textContent = chart.title;
    this.label.textContent = chart.y + (chart.ruleLabel ? ' · ' + chart.ruleLabel : '');
    this.groups = [];
    chart.arms.forEach(function (arm, place) {
      if (!self.chosen.has(arm)) return;
      var lines = chart.lines.filter(function (line) { return line.arm === place; });
      lines.forEach(function (line) { line.s = smooth(line.y, self.amount); });
      self.groups.push({ arm: arm, place: place, lines: lines, band: band(lines) });
    });
    var xs = [], ys = chart.rule === null ? [] : [chart.rule];
    this.groups.forEach(function (group) {
      group.lines.forEach(function (line) {
        if (!line.x.length) return;
        xs.push(line.x[0], line.x[line.x.length - 1]);
        if (self.each || group.lines.length === 1) line.s.forEach(function (y) { if (y !== null) ys.push(y); });
      });
      if (!self.each) group.band.forEach(function (row) { ys.push(row.low, row.high); });
    });
    var x0 = min(xs), x1 = max(xs), y0 = min(ys), y1 = max(ys);
    var log = this.log && y0 > 0;
    if (log) { var room = Math.pow(y1 / y0, 0.05) || 1.05; y0 /= Math.max(room, 1.001); y1 *= Math.max(room, 1.001); }
    else { var pad = (y1 - y0) * 0.05 || Math.abs(y1) * 0.05 || 1; y0 -= pad; y1 += pad; }
    function px(x) { return left + (x1 > x0 ? (x - x0) / (x1 - x0) : 0.5) * (width - left - right); }
    function py(y) {
      var share = log ? (Math.log(y) - Math.log(y0)) / (Math.log(y1) - Math.log(y0)) : (y - y0) / (y1 - y0);
      return top + (1 - share) * (height - top - bottom);
    }
    var svg = document.createElementNS(SVG, 'svg');
    svg.setAttribute('viewBox', '0 0 ' + width + ' ' + height);
    svg.setAttribute('height', height);
    svg.setAttribute('role', 'img');
    svg.setAttribute('tabindex', '0');
    svg.setAttribute('aria-label', chart.title + '. ' + chart.y + '; ' + chart.x + '. ' + words.keys);
    if (this.groups.length) {
      (log ? logTicks(y0, y1, 6) : linearTicks(y0, y1, 6)).forEach(function (tick) {
        draw(svg, 'line', { class: 'grid', x1: left, x2: width - right, y1: py(tick), y2: py(tick) });
        draw(svg, 'text', { x: left - 6, y: py(tick) + 4, 'text-anchor': 'end' }, format.format(tick));
      });
      linearTicks(x0, x1, width > 620 ? 8 : 4).forEach(function (tick) {
        draw(svg, 'text', { x: px(tick), y: height - bottom + 16, 'text-anchor': 'middle' }, format.format(tick));
      });
    } else {
      draw(svg, 'text', { x: width / 2, y: height / 2, 'text-anchor': 'middle' }, words.nothing);
    }
    draw(svg, 'text', { class: 'label', x: width - right, y: height - 6, 'text-anchor': 'end' }, chart.x);
    if (chart.rule !== null && this.groups.length) draw(svg, 'line', { class: 'margin', x1: left, x2: width - right, y1: py(chart.rule), y2: py(chart.rule) });
    this.groups.forEach(function (group) {
      var colour = 'c' + group.place % COLOURS;
      if (!self.each && group.lines.length > 1) {
        if (!group.band.length) return;
        var upper = group.band.map(function (row) { return px(row.x) + ',' + py(row.high); });
        var lower = group.band.slice().reverse().map(function (row) { return px(row.x) + ',' + py(row.low); });
        draw(svg, 'path', { class: 'band ' + colour, d: 'M' + upper.concat(lower).join('L') + 'Z' });
        draw(svg, 'path', { class: 'line ' + colour, d: 'M' + group.band.map(function (row) { return px(row.x) + ',' + py(row.mean); }).join('L') });
        return;
      }
      group.lines.forEach(function (line) {
        var path = '', pen = 'M';
        line.x.forEach(function (x, i) {
          if (line.s[i] === null) { draw(svg, 'text', { class: colour, x: px(x), y: top + 8, 'text-anchor': 'middle' }, '✕'); pen = 'M'; return; }
          path += pen + px(x) + ',' + py(line.s[i]);
          pen = 'L';
        });
        if (path) draw(svg, 'path', { class: 'line ' + colour + (group.lines.length > 1 ? ' thin' : ''), d: path });
      });
    });
    if (right > 100) this.names(svg, py, width - right + 6, height - bottom);
    this.mark = draw(svg, 'g', {});
    this.plane = { svg: svg, px: px, py: py, x0: x0, x1: x1, left: left, right: right, width: width, height: height, top: top, bottom: bottom };
    this.box.replaceChildren(svg);
    this.listen(svg);
    this.hide();
  };
  function min(values) { return values.reduce(function (a, b) { return Math.min(a, b); }, Infinity); }
  function max(values) { return values.reduce(function (a, b) { return Math.max(a, b); }, -Infinity); }
  Figure.prototype.names = function (svg, py, x, floor) {
    var placed = this.groups.filter(function (group) { return group.band.length; }).map(function (group) {
      return { group: group, y: py(group.band[group.band.length - 1].mean) };
    }).sort(function (a, b) { return a.y - b.y; });
    placed.forEach(function (each, i) { if (i) each.y = Math.max(each.y, placed[i - 1].y + 13); });
    if (placed.length * 13 > floor) return;
    // What does not fit at the bottom moves up, and pushes only what it meets.
    for (var i = placed.length - 1, limit = floor; i >= 0; i--, limit -= 13) placed[i].y = Math.min(placed[i].y, limit);
    placed.forEach(function (each) {
      var name = each.group.arm;
      draw(svg, 'text', { class: 'name c' + each.group.place % COLOURS, x: x, y: each.y + 4 }, name.length > 18 ? name.slice(0, 17) + '…' : name);
    });
  };
  // ---- reading values: by pointer and by arrow keys
  Figure.prototype.listen = function (svg) {
    var self = this;
    svg.addEventListener('pointermove', function (event) {
      var frame = svg.getBoundingClientRect(), scale = self.plane.width / frame.width;
      self.nearest((event.clientX - frame.left) * scale, (event.clientY - frame.top) * scale);
    });
    svg.addEventListener('pointerleave', function () { self.hide(); });
    svg.addEventListener('blur', function () { self.hide(); });
    svg.addEventListener('keydown', function (event) {
      var moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
      if (event.key === 'Escape') return self.hide();
      if (!moves[event.key] || !self.groups.length) return;
      event.preventDefault();
      var now = self.cursor || { group: 0, place: -1 };
      var group = (now.group + moves[event.key][1] + self.groups.length) % self.groups.length;
      var last = self.groups[group].band.length - 1;
      var place = Math.max(0, Math.min(last, now.place + moves[event.key][0]));
      self.point(group, place, true);
    });
  };
  Figure.prototype.nearest = function (x, y) {
    var plane = this.plane, best = null;
    this.groups.forEach(function (group, index) {
      if (!group.band.length) return;
      var place = 0, distance = Infinity;
      group.band.forEach(function (row, i) {
        var away = Math.abs(plane.px(row.x) - x);
        if (away < distance) { distance = away; place = i; }
      });
      var height = Math.abs(plane.py(group.band[place].mean) - y);
      if (!best || height < best.height) best = { group: index, place: place, height: height };
    });
    if (best) this.point(best.group, best.place, false);
  };
  Figure.prototype.point = function (index, place, aloud) {
    var group = this.groups[index], row = group.band[place], plane = this.plane, self = this;
    if (!row) return;
    this.cursor = { group: index, place: place };
    this.mark.replaceChildren();
    draw(this.mark, 'line', { class: 'cursor', x1: plane.px(row.x), x2: plane.px(row.x), y1: plane.top, y2: plane.height - plane.bottom });
    draw(this.mark, 'circle', { class: 'dot c' + group.place % COLOURS, cx: plane.px(row.x), cy: plane.py(row.mean), r: 4.5 });
    var head = make('p'), lines = [head];
    head.append(make('strong', {}, group.arm), document.createTextNode(' · ' + this.chart.x + ' ' + format.format(row.x)));
    if (group.lines.length > 1) lines.push(make('p', {}, words.mean + ' ' + format.format(row.mean)));
    group.lines.forEach(function (line) {
      var value = at(line, [row.x])[0], text = make('p');
      text.append(document.createTextNode((line.seed === null ? '' : words.seed + ' ' + line.seed + ': ') + (value === undefined ? '—' : format.format(value)) + ' '));
      text.append(make('code', {}, line.run));
      lines.push(text);
    });
    this.note.replaceChildren.apply(this.note, lines);
    this.note.hidden = false;
    var scale = this.box.clientWidth / plane.width, across = plane.px(row.x) * scale;
    var free = this.box.clientWidth - across > this.note.offsetWidth + 24;
    this.note.style.left = Math.max(0, free ? across + 14 : across - this.note.offsetWidth - 14) + 'px';
    this.note.style.top = this.box.offsetTop + plane.top + 'px';
    if (aloud) this.said.textContent = lines.map(function (line) { return line.textContent; }).join('; ');
    else self.said.textContent = '';
  };
  Figure.prototype.hide = function () {
    this.cursor = null;
    if (this.mark) this.mark.replaceChildren();
    if (this.note) this.note.hidden = true;
  };

  tools();
  window.addEventListener('hashchange', reveal);
  window.addEventListener('beforeprint', function () {
    document.querySelectorAll('main details').forEach(function (each) { each.open = true; });
  });
  // A chart is drawn when it is first seen: a report may hold hundreds of them in what is folded.
  var drawn = new Map();
  var seen = new IntersectionObserver(function (entries) {
    entries.forEach(function (entry) {
      if (entry.isIntersecting && !drawn.has(entry.target)) {
        drawn.set(entry.target, new Figure(entry.target, data.figures[Number(entry.target.dataset.figure)]));
      }
    });
  }, { rootMargin: '300px' });
  document.querySelectorAll('figure.chart').forEach(function (element) { seen.observe(element); });
  var width = window.innerWidth;
  window.addEventListener('resize', function () {
    if (window.innerWidth === width) return;
    width = window.innerWidth;
    drawn.forEach(function (figure) { figure.draw(); });
  });
  if (window.innerWidth < 1180) document.querySelector('.contents').open = false;
  reveal();
  document.documentElement.setAttribute('data-ready', 'yes');
})();
