import sqlalchemy as sa


def models(t):
    return sa.true()


def versions(t):
    return sa.true()
