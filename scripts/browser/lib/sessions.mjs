// Sessions that nobody had: what Claude Code would tell its hooks about them, and what it would write into transcripts.
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';

/** An id that is the same in each run. */
export function uuid(name) {
  const hex = createHash('sha256').update(name).digest('hex');
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-4${hex.slice(13, 16)}-8${hex.slice(17, 20)}-${hex.slice(20, 32)}`;
}

const version = '2.1.332';

/** Writes lines of one transcript, with a clock of its own. */
class Thread {
  constructor(session, file, agent) {
    Object.assign(this, { session, file, agent, parent: null, lines: 0, context: 0 });
    fs.mkdirSync(path.dirname(file), { recursive: true });
  }

  id(what) {
    return uuid(`${this.session.id} ${this.agent ?? ''} ${what} ${this.lines}`);
  }

  line(fields) {
    this.lines += 1;
    const id = this.id('line');
    const { session } = this;
    const line = {
      parentUuid: this.parent, isSidechain: Boolean(this.agent), ...(this.agent && { agentId: this.agent }), ...fields,
      uuid: id, timestamp: session.now().toISOString(), userType: 'external', entrypoint: 'cli', cwd: session.project,
      sessionId: session.id, version, gitBranch: 'main',
    };
    fs.appendFileSync(this.file, `${JSON.stringify(line)}\n`);
    this.parent = id;
    return id;
  }

  prompt(text, promptId) {
    this.context += Math.ceil(text.length / 4);
    this.line({ promptId, type: 'user', message: { role: 'user', content: text } });
  }

  /** One answer of the model: its blocks come as a line each, under one id. */
  answer(blocks, model, stop) {
    const written = 60 + Math.ceil(JSON.stringify(blocks).length / 3.5);
    const before = this.context;
    this.context = Math.max(before, 18_000) + written;
    const fresh = before === 0 ? 18_000 : Math.min(2400, Math.ceil(before * 0.06));
    const usage = {
      input_tokens: 12, cache_creation_input_tokens: fresh, cache_read_input_tokens: Math.max(0, before - fresh),
      output_tokens: written, server_tool_use: { web_search_requests: 0, web_fetch_requests: 0 }, service_tier: 'standard',
      cache_creation: { ephemeral_1h_input_tokens: 0, ephemeral_5m_input_tokens: fresh }, speed: 'standard',
    };
    const id = `msg_${this.id('message').replaceAll('-', '').slice(0, 24)}`;
    for (const block of blocks) {
      this.session.passes(30);
      const message = { id, type: 'message', role: 'assistant', model, content: [block], stop_reason: stop, stop_sequence: null, usage };
      this.line({ message, requestId: `req_${id.slice(4, 24)}`, type: 'assistant' });
    }
  }

  result(toolUseId, content, isError, response) {
    this.context += Math.ceil(content.length / 4);
    const result = { tool_use_id: toolUseId, type: 'tool_result', content, is_error: isError };
    this.line({ type: 'user', message: { role: 'user', content: [result] }, toolUseResult: response });
  }
}

/**
 * Plays a session into a transcript, and what its hooks say into `hook`.
 *
 * `session` has an id, a project, a model and turns; each turn a prompt and steps: words, thoughts, tools and a last answer;
 * `thinks` is how long the model needs for each.
 * Its clock starts at `begins`; without one it is the real clock.
 */
export class Session {
  constructor(session, server, { hook, begins } = {}) {
    Object.assign(this, { thinks: 2500 }, session, { server, send: hook ?? (() => {}), begins });
    this.id ??= uuid(`session ${session.name}`);
    this.clock = begins?.getTime();
    this.file = server.transcript(this.project, this.id);
    this.main = new Thread(this, this.file);
  }

  now() {
    return this.begins ? new Date(this.clock) : new Date();
  }

  passes(ms) {
    if (this.begins) this.clock += Math.round(ms);
  }

  async hook(name, fields) {
    await this.send({ session_id: this.id, transcript_path: this.file, cwd: this.project, permission_mode: 'default', hook_event_name: name, ...fields });
  }

  /** All of it; the end as well, unless `open`. */
  async play({ open = false } = {}) {
    await this.hook('SessionStart', { source: 'startup', model: this.model });
    this.passes(900);
    for (const turn of this.turns) await this.turn(turn);
    if (this.title) fs.appendFileSync(this.file, `${JSON.stringify({ type: 'ai-title', sessionId: this.id, aiTitle: this.title })}\n`);
    if (!open) await this.hook('SessionEnd', { reason: 'prompt_input_exit' });
    return this;
  }

  async turn({ prompt, steps, answer, waits = 40_000, ends = true }) {
    const promptId = uuid(`${this.id} ${prompt}`);
    await this.hook('UserPromptSubmit', { prompt_id: promptId, prompt });
    this.main.prompt(prompt, promptId);
    for (const step of steps ?? []) await this.step(this.main, step, {}, promptId);
    if (answer) {
      this.passes(4000 + answer.length * 12);
      this.main.answer([{ type: 'text', text: answer }], this.model, 'end_turn');
    }
    if (ends) await this.hook('Stop', { prompt_id: promptId, stop_hook_active: false, last_assistant_message: answer });
    this.passes(waits);
  }

  async step(thread, { think, say, tool, input = {}, output = '', error, response, took = 300, agent, open }, of, promptId) {
    const model = agent?.model ?? of.model ?? this.model;
    this.passes(this.thinks + (say ?? '').length * 10);
    const blocks = [];
    if (think) blocks.push({ type: 'thinking', thinking: think, signature: 'c2ln' });
    if (say) blocks.push({ type: 'text', text: say });
    if (!tool) return thread.answer(blocks, of.model ?? this.model, 'end_turn');
    const id = `toolu_${thread.id(tool).replaceAll('-', '').slice(0, 24)}`;
    blocks.push({ type: 'tool_use', id, name: tool, input });
    thread.answer(blocks, of.model ?? this.model, 'tool_use');
    const told = { prompt_id: promptId, ...(of.agent && { agent_id: of.agent, agent_type: of.type }), tool_name: tool, tool_input: input, tool_use_id: id };
    await this.hook('PreToolUse', told);
    if (open) return undefined;
    let said = output;
    if (agent) said = await this.subagent(agent, id, model, promptId);
    this.passes(took);
    if (error) {
      await this.hook('PostToolUseFailure', { ...told, error, is_interrupt: false, duration_ms: took });
      return thread.result(id, error, true, `Error: ${error}`);
    }
    const given = agent ? { status: 'completed', agentId: agent.id, content: [{ type: 'text', text: said }], totalDurationMs: took }
      : response ?? { stdout: said, stderr: '', interrupted: false, isImage: false };
    await this.hook('PostToolUse', { ...told, tool_response: given, duration_ms: took });
    return thread.result(id, said, false, given);
  }

  async subagent({ id, type, description, prompt, steps, answer }, toolUseId, model, promptId) {
    const file = path.join(this.file.slice(0, -'.jsonl'.length), 'subagents', `agent-${id}.jsonl`);
    const thread = new Thread(this, file, id);
    fs.writeFileSync(file.replace('.jsonl', '.meta.json'), JSON.stringify({ agentType: type, description, toolUseId, spawnDepth: 1, model }));
    await this.hook('SubagentStart', { prompt_id: promptId, agent_id: id, agent_type: type });
    thread.prompt(prompt, promptId);
    for (const step of steps) await this.step(thread, step, { agent: id, type, model }, promptId);
    this.passes(3000);
    thread.answer([{ type: 'text', text: answer }], model, 'end_turn');
    await this.hook('SubagentStop', { agent_id: id, agent_type: type, agent_transcript_path: file, last_assistant_message: answer, stop_hook_active: false });
    return answer;
  }
}

/** An edit of a file, as the tool is called and as it answers. */
export function edit(file, before, after, { at = 1, around = [[], []] } = {}) {
  const [above, below] = around;
  const lines = [
    ...above.map((line) => ` ${line}`), ...before.split('\n').map((line) => `-${line}`),
    ...after.split('\n').map((line) => `+${line}`), ...below.map((line) => ` ${line}`),
  ];
  const kept = above.length + below.length;
  const patch = {
    oldStart: at, oldLines: kept + before.split('\n').length, newStart: at, newLines: kept + after.split('\n').length, lines,
  };
  return {
    tool: 'Edit',
    input: { file_path: file, old_string: before, new_string: after, replace_all: false },
    output: `The file ${file} has been updated successfully.`,
    response: { filePath: file, oldString: before, newString: after, originalFile: null, structuredPatch: [patch], userModified: false, replaceAll: false },
    took: 12,
  };
}
