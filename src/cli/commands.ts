import { Command } from 'commander';
import { version } from '../version.ts';
import { demoCommand } from './demo.ts';
import { downCommand } from './down.ts';
import { execCommand } from './exec.ts';
import { explainCommand } from './explain.ts';
import { monitorCommand } from './monitor.ts';
import { netstatCommand } from './netstat.ts';
import { pingCommand } from './ping.ts';
import { statusCommand } from './status.ts';
import { sysctlCommand } from './sysctl.ts';
import { traceCommand } from './trace.ts';
import { upCommand } from './up.ts';

/** The program `testudo` with all its commands. */
export function testudo(): Command {
  return (
    new Command('testudo')
      .description('IPsec that runs anywhere Node.js runs')
      .version(version)
      // What comes behind the program of `exec` is that program's.
      .enablePositionalOptions()
      .showHelpAfterError('(testudo help COMMAND shows what it takes)')
      .addCommand(upCommand())
      .addCommand(downCommand())
      .addCommand(statusCommand())
      .addCommand(netstatCommand())
      .addCommand(sysctlCommand())
      .addCommand(explainCommand())
      .addCommand(traceCommand())
      .addCommand(monitorCommand())
      .addCommand(pingCommand())
      .addCommand(execCommand())
      .addCommand(demoCommand())
  );
}
