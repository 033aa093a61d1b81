"""A conversation on the command line: /count counts its messages, /clear forgets, /exit ends it.

It goes on where it stood when it is started again. What is typed here comes from standard input.

Types:
My name is Alice
What is my name?
/count
/clear
/count
What is my name?
/exit

Prints:
> I will remember that your name is Alice.

> Your name is Alice

> Messages: 5
> > Messages: 0
> You have not told me your name.

> Bye.
"""

from evstore.agent import FileSystemStorage, create_session

session = create_session("repl", FileSystemStorage("sessions"))
while True:
    try:
        text = input("> ").strip()
    except EOFError:
        break
    match text:
        case "/exit":
            break
        case "/clear":
            session.clear_history()
        case "/count":
            print("Messages:", session.message_count)
        case "":
            continue
        case _:
            print(f"{session.send_message(text).result}\n")
print("Bye.")
