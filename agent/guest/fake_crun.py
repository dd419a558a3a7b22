#!/usr/bin/env python3
"""Stands in for crun in the unit tests: runs the process of a configuration without any isolation."""

import array
import json
import os
import pty
import socket
import sys


def parse(words):
    options, rest = {}, []
    words = iter(words)
    for word in words:
        if word in ("--root", "--log", "--bundle", "--pid-file", "--console-socket", "--process"):
            options[word] = next(words)
        elif not word.startswith("--"):
            rest.append(word)
    return options, rest


def main():
    options, (command, identifier) = parse(sys.argv[1:])
    state = os.path.join(options["--root"], identifier)
    if command == "delete":
        os.rmdir(state)
        return 0
    if command == "run":
        os.makedirs(state)
        with open(options["--bundle"] + "/config.json") as file:
            process = json.load(file)["process"]
    else:
        with open(options["--process"]) as file:
            process = json.load(file)
    slave = None
    if "--console-socket" in options:
        master, slave = pty.openpty()
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(options["--console-socket"])
            connection.sendmsg([b"tty"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [master]))])
        os.close(master)
    failure_read, failure_write = os.pipe()  # closed by a successful exec
    pid = os.fork()
    if pid == 0:
        os.setsid()
        if slave is not None:
            for fd in (0, 1, 2):
                os.dup2(slave, fd)
        try:
            os.execv(process["args"][0], process["args"])
        except OSError as error:
            os.write(failure_write, str(error).encode())
            os._exit(127)
    os.close(failure_write)
    failure = os.read(failure_read, 1000)
    if failure:
        os.waitpid(pid, 0)
        with open(options["--log"], "wb") as log:
            log.write(b"executable " + process["args"][0].encode() + b": " + failure)
        return 1
    with open(options["--pid-file"], "w") as file:
        file.write(str(pid))
    return 0


sys.exit(main())
