// What payloads say stays text, wherever it is shown.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { test } from 'node:test';
import { violations } from './lib/browser.mjs';
import { uuid } from './lib/sessions.mjs';
import { stage } from './lib/test.mjs';
import { vectors } from './lib/vectors.mjs';

/** A session whose transcript says the text wherever a transcript says something. */
function transcript(server, vector, at) {
  const session = uuid(`injection ${at}`);
  const file = server.transcript('/home/ada/shop', session);
  const time = (second) => new Date(Date.now() - 60_000 + second * 1000).toISOString();
  const line = (n, fields) => ({ parentUuid: n ? uuid(`${session} ${n - 1}`) : null, uuid: uuid(`${session} ${n}`), isSidechain: false, timestamp: time(n), cwd: `/home/ada/${vector}`, sessionId: session, version: vector, gitBranch: vector, ...fields });
  const answer = (n, content) => line(n, { type: 'assistant', message: { id: `msg_${at}_${n}`, type: 'message', role: 'assistant', model: vector, content, stop_reason: 'end_turn', usage: { input_tokens: 10, output_tokens: 10 } } });
  const tool = { type: 'tool_use', id: `toolu_${at}`, name: vector, input: { [vector]: vector, file_path: vector } };
  const lines = [
    line(0, { type: 'user', message: { role: 'user', content: vector } }),
    answer(1, [{ type: 'thinking', thinking: vector, signature: 'eA==' }]),
    answer(2, [{ type: 'text', text: vector }]),
    answer(3, [tool]),
    line(4, { type: 'user', message: { role: 'user', content: [{ type: 'tool_result', tool_use_id: tool.id, content: vector, is_error: true }] }, toolUseResult: vector }),
    { type: 'ai-title', sessionId: session, aiTitle: vector },
    { type: 'custom-title', sessionId: session, customTitle: `${vector} ` },
  ];
  fs.writeFileSync(file, lines.map((one) => JSON.stringify(one)).join('\n'));
  return session;
}

let sessions;
const on = stage(async ({ server }) => {
  sessions = vectors.map((vector, at) => transcript(server, vector, at));
  server.run('import');
  for (const vector of vectors) {
    // The text is the id of the session as well.
    const hook = (name, fields) => server.hook({ session_id: vector, cwd: `/home/ada/${vector}`, hook_event_name: name, ...fields });
    const tool = { tool_name: vector, tool_input: { file_path: vector, command: vector, old_string: vector, new_string: vector }, tool_use_id: `toolu_${vector}` };
    hook('UserPromptSubmit', { prompt: vector });
    hook('PreToolUse', tool);
    hook('PostToolUseFailure', { ...tool, error: vector });
    hook('Stop', { last_assistant_message: vector });
    server.hook({ session_id: vector, hook_event_name: 5, [vector]: vector });
    server.hook({ session_id: vector, hook_event_name: vector, [vector]: vector });
  }
  await server.settled();
});

/** What a page must not have, whatever was said. */
const dangers = () => {
  const found = [];
  if (window.__ran !== undefined) found.push(`__ran is ${window.__ran}`);
  for (const element of document.querySelectorAll('*')) {
    const attributes = [...element.attributes];
    for (const { name, value } of attributes) {
      if (name.startsWith('on') || name === 'style' || name === 'srcdoc') found.push(`${element.tagName} has ${name}`);
      if (['href', 'src', 'action', 'formaction', 'data', 'xlink:href'].includes(name)) {
        const url = new URL(value, location.href);
        if (!['http:', 'https:'].includes(url.protocol)) found.push(`${element.tagName} leads to ${value}`);
        if (element.tagName !== 'A' && url.origin !== location.origin) found.push(`${element.tagName} loads ${value}`);
      }
    }
  }
  const allowed = document.querySelectorAll('head > script[src^="/assets/"], head > link[href^="/assets/"]');
  for (const element of document.querySelectorAll('script, iframe, object, embed, base, template, style, link, meta[http-equiv], img, video, audio, math')) {
    if (![...allowed].includes(element) && !element.matches('head > link[rel=alternate]')) found.push(`a ${element.tagName}`);
  }
  return found;
};

async function harmless(page, at) {
  const answer = await page.goto(on.server.url + at);
  // Everything is opened, hovered and focused: then also what waits for that would run.
  await page.evaluate(() => {
    for (const details of document.querySelectorAll('details')) details.open = true;
    for (const element of document.querySelectorAll('main *')) {
      element.dispatchEvent(new MouseEvent('mouseover', { bubbles: true }));
      element.focus?.();
    }
  });
  assert.deepEqual(await page.evaluate(dangers), [], at);
  assert.deepEqual(await violations(page), [], at);
  assert.deepEqual(page.faults.filter((fault) => !fault.includes('status of 4')), [], at);
  page.faults.length = 0;
  return answer.status();
}

/** Without white space and signs that are not seen, which pages may show differently. */
const bare = (text) => text.replace(/[\s\p{Cc}\p{Cf}\u2028]/gu, '');

test('there are fifty texts at least', () => assert.ok(new Set(vectors).size >= 50));

test('in a conversation that hooks have told of, under a session id that is the text', () => on.page(async (page) => {
  for (const vector of vectors) {
    assert.equal(await harmless(page, `/c/${encodeURIComponent(vector)}`), 200, vector);
    const main = bare(await page.textContent('main'));
    // Markdown takes its signs away, but nothing that is HTML.
    const [first] = vector.match(/<script>|onerror|__ran|example\.invalid/);
    assert.ok(main.includes(bare(first)) || /^[[!]/.test(vector), `${vector} is shown`);
  }
}));

test('in a conversation that a transcript has told of, with a title', () => on.page(async (page) => {
  for (const [at, vector] of vectors.entries()) {
    assert.equal(await harmless(page, `/c/${sessions[at]}`), 200, vector);
    const title = await page.textContent('h1');
    assert.ok(bare(vector).startsWith(bare(title).replace(/…$/, '').slice(0, 60)), `${title} is the title for ${vector}`);
  }
}));

test('in lists of events, page by page', () => on.page(async (page) => {
  let rows = 0;
  for (let at = '/events'; at;) {
    assert.equal(await harmless(page, at), 200);
    rows += await page.locator('[data-row]').count();
    const older = page.locator('a[rel=next]');
    at = await older.count() ? await older.getAttribute('href') : null;
  }
  assert.ok(rows >= vectors.length * 6, `${rows} rows`);
}));

test('on the page of an event', () => on.page(async (page) => {
  for (const vector of vectors) {
    const answer = await page.request.get(`${on.server.url}/api/v1/events?session=${encodeURIComponent(vector)}`);
    const { events } = await answer.json();
    assert.ok(events.length >= 6, `${events.length} events of ${vector}`);
    const failed = events.find((event) => event.status === 'INVALID');
    const other = events.find((event) => event.eventType === 'PostToolUseFailure');
    for (const { id } of [failed, other]) {
      assert.equal(await harmless(page, `/events/${id}`), 200);
      assert.ok(bare(await page.textContent('.payload')).includes('__ran') || vector.includes('example.invalid'));
    }
  }
}));

test('in what is searched and filtered for', () => on.page(async (page) => {
  for (const vector of vectors) {
    const text = encodeURIComponent(vector);
    // A search may be refused; what was asked for is shown nevertheless.
    for (const at of [`/search?q=${text}`, `/search?q=ran&tool=${text}&project=${text}`, `/events?q=${text}`, `/events?type=${text}&host=${text}&since=1d`, `/conversations?project=${text}`, `/sign-in?next=${text}`, `/events?status=${text}`]) {
      assert.ok([200, 400, 422].includes(await harmless(page, at)), at);
    }
  }
}));

test('on all other pages', () => on.page(async (page) => {
  for (const at of ['/', '/?w=15m', '/conversations', '/usage', '/usage?w=30d', '/failed', '/machines', '/keys', '/search?q=ran']) {
    assert.equal(await harmless(page, at), 200, at);
  }
}));

test('a page that would run them is noticed', () => on.page(async (page) => {
  // The tests above see nothing; so this shows that they would.
  await page.goto(`${on.server.url}/`);
  const refused = await page.evaluate(() => {
    const image = document.createElement('img');
    image.src = '//example.invalid/x.png';
    document.body.append(image);
    try {
      image.setAttribute('onerror', 'window.__ran=1');
      return '';
    } catch (error) {
      return String(error);
    }
  });
  assert.match(refused, /TrustedScript/);
  await page.waitForFunction(() => window.__violations.length > 0);
  assert.deepEqual(await page.evaluate(dangers), ['IMG loads //example.invalid/x.png', 'a IMG']);
  page.faults.length = 0;
}));
