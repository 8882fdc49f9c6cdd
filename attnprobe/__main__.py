from attnprobe.cli import main

if __name__ == "__main__":  # workers of parallel runs import this module too
    main()
