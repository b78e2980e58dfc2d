// A real `arrakis up` in a temporary home, and the programs beside it.
import { spawn, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

const root = path.resolve(import.meta.dirname, '../../..');
const programs = path.resolve(process.env.ARRAKIS_BIN_DIR ?? path.join(root, 'target/debug'));

/** Repeats `look` until it gives something. */
export async function until(what, look, ms = 20_000) {
  const end = Date.now() + ms;
  for (;;) {
    const found = await look();
    if (found) return found;
    if (Date.now() > end) throw new Error(`${what} did not happen within ${ms / 1000} s`);
    await sleep(50);
  }
}

function program(name) {
  const file = path.join(programs, name);
  if (!fs.existsSync(file)) {
    throw new Error(`${file} is missing; build it with: cargo build -p arrakis-bin, or set ARRAKIS_BIN_DIR`);
  }
  return file;
}

/** Command and arguments that run a program on a machine of that name, where the system allows it. */
function onHost(host, file, args) {
  if (!host) return [file, args];
  return ['unshare', ['--user', '--map-root-user', '--uts', 'sh', '-c', 'hostname "$0" && exec "$@"', host, file, ...args]];
}

/** Compiles the library that moves the clock of programs. */
function clockLibrary(folder) {
  const library = path.join(folder, 'clock.so');
  const source = path.join(import.meta.dirname, 'clock.c');
  const done = spawnSync('cc', ['-O1', '-shared', '-fPIC', '-o', library, source], { encoding: 'utf8' });
  if (done.status !== 0) throw new Error(`clock.c does not compile: ${done.error ?? done.stderr}`);
  return library;
}

/** Whether programs can be told another name of the machine. */
export function canNameHosts() {
  const [file, args] = onHost('test', 'true', []);
  return spawnSync(file, args).status === 0;
}

/** A running server. Close it at the end. */
export class Server {
  /** Starts one. `host` is the machine's name that programs see; with `begins` they see the time that `setTime` says. */
  static async start({ host, user = 'ada', begins } = {}) {
    const server = new Server();
    server.home = fs.mkdtempSync(path.join(os.tmpdir(), 'arrakis-browser-'));
    server.host = host;
    server.environment = {
      PATH: process.env.PATH,
      TZ: 'UTC',
      LANG: 'C.UTF-8',
      USER: user,
      LOGNAME: user,
      HOME: server.home,
      ARRAKIS_HOME: path.join(server.home, 'arrakis'),
      CLAUDE_CONFIG_DIR: path.join(server.home, '.claude'),
      XDG_RUNTIME_DIR: server.home,
    };
    fs.mkdirSync(path.join(server.home, '.claude/projects'), { recursive: true });
    if (begins) {
      server.clock = path.join(server.home, 'clock');
      server.setTime(begins);
      server.environment.LD_PRELOAD = clockLibrary(server.home);
      server.environment.ARRAKIS_CLOCK = server.clock;
    }
    await server.#up();
    return server;
  }

  /** Has all programs see this time, from where it goes on. */
  setTime(time) {
    const offset = Buffer.alloc(8);
    offset.writeBigInt64LE(BigInt(time - Date.now()) * 1_000_000n);
    // In place: the file is mapped.
    const file = fs.openSync(this.clock, fs.constants.O_RDWR | fs.constants.O_CREAT);
    fs.writeSync(file, offset, 0, 8, 0);
    fs.closeSync(file);
  }

  async #up() {
    const [file, args] = onHost(this.host, program('arrakis'), ['up', '--listen', '127.0.0.1:0']);
    this.process = spawn(file, args, { env: this.environment, cwd: this.home, stdio: ['ignore', 'pipe', 'pipe'] });
    // Where a script ends early nothing is left behind.
    process.once('exit', () => { this.process.kill('SIGKILL'); });
    let said = '';
    this.process.stdout.on('data', (data) => { said += data; });
    this.process.stderr.on('data', (data) => { said += data; });
    this.process.on('error', (error) => { said += error; });
    const find = (pattern) => said.match(pattern)?.[1];
    try {
      await until('the start of the server', () => {
        if (this.process.exitCode !== null) throw new Error(`the server ended:\n${said}`);
        return find(/sign-in\/link\?token=(\w+)/);
      });
    } catch (error) {
      throw new Error(`${error.message}\n${said}`);
    }
    this.url = find(/listens at (http:\/\/[^/\s]+)/);
    this.key = find(/(ark_\w+)/);
    this.link = find(/(http:\S+\/sign-in\/link\?token=\w+)/);
  }

  /** Runs `arrakis` and returns what it prints. */
  run(...args) {
    const [file, all] = onHost(this.host, program('arrakis'), args);
    const done = spawnSync(file, all, { env: this.environment, cwd: this.home, encoding: 'utf8' });
    if (done.status !== 0) throw new Error(`arrakis ${args.join(' ')}: ${done.stdout}${done.stderr}`);
    return done.stdout;
  }

  /** Sends an event through the hook, as Claude Code does. */
  hook(payload) {
    const [file, args] = onHost(this.host, program('arrakis-hook'), []);
    const input = typeof payload === 'string' ? payload : JSON.stringify(payload);
    const done = spawnSync(file, args, { env: this.environment, cwd: this.home, input, encoding: 'utf8' });
    if (done.status !== 0) throw new Error(`the hook ended with ${done.status}: ${done.stderr}`);
  }

  /** Waits until the spool holds no event, without starting a program. */
  async delivered() {
    const files = (name) => fs.readdirSync(path.join(this.home, 'arrakis/queue', name), { recursive: true, withFileTypes: true });
    const isEvent = (file) => file.isFile() && !['lock', 'owner.json'].includes(file.name);
    const look = (name) => { try { return files(name).filter(isEvent).length; } catch { return 1; } };
    for (let tries = 0; look('pending') + look('processing') > 0; tries += 1) {
      if (tries > 6000) throw new Error('events are not delivered');
      await sleep(5);
    }
  }

  /** Waits until the spool is empty and what it held is stored. */
  async settled() {
    await until('delivery', () => {
      const { spool } = JSON.parse(this.run('status', '--json'));
      return spool.pending + spool.processing === 0;
    }, 60_000);
  }

  /** Where Claude Code would keep the transcript of a session. */
  transcript(project, session) {
    const folder = path.join(this.home, '.claude/projects', project.replace(/[^a-zA-Z0-9]/g, '-'));
    fs.mkdirSync(folder, { recursive: true });
    return path.join(folder, `${session}.jsonl`);
  }

  /** The drainers that hooks and the server have started; they outlive those. */
  #drainers() {
    const owners = path.join(this.home, 'arrakis/queue/processing');
    const ids = fs.existsSync(owners) ? fs.readdirSync(owners).map((name) => Number.parseInt(name, 10)) : [];
    const drains = (id) => spawnSync('ps', ['-o', 'args=', '-p', String(id)], { encoding: 'utf8' }).stdout.includes(`${program('arrakis')} drain`);
    return [...new Set(ids)].filter((id) => id > 1 && drains(id));
  }

  async close() {
    if (this.process.exitCode === null) {
      const ended = new Promise((resolve) => { this.process.once('exit', resolve); });
      this.process.kill('SIGTERM');
      const timer = setTimeout(() => this.process.kill('SIGKILL'), 10_000);
      await ended;
      clearTimeout(timer);
    }
    for (const id of this.#drainers()) process.kill(id, 'SIGTERM');
    await until('the end of the drainers', () => this.#drainers().length === 0);
    fs.rmSync(this.home, { recursive: true, force: true, maxRetries: 5 });
  }
}
