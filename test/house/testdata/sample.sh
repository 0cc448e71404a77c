# It tells
# whether, and
shall=1
