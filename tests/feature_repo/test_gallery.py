"""The cards of public logs read samples in the formats that those logs' documentation gives; the values are made up."""

import gzip
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from feature_repo.card import CARDS, load_card
from feature_repo.reader.catalogue import load_catalogue
from feature_repo.reader.clicks import read_clicks
from feature_repo.reader.dataset import check_dataset
from feature_repo.source import dataset_folder
from feature_repo.views import define


@dataclass(frozen=True)
class Sample:
    """Files of a public log, the clicks that they have (query, item, UTC minute or ms), and a row of its catalogue."""

    files: dict[str, str]
    clicks: list[tuple[str, str, int]]
    item: dict = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)


RETAILROCKET = Sample(
    {
        "events.csv": "timestamp,visitorid,event,itemid,transactionid\n"
        "1433221332117,257597,view,355908,\n1433224214164,992329,transaction,248676,4000\n",
        "item_properties_part1.csv": "timestamp,itemid,property,value\n1435460400000,355908,categoryid,1338\n"
        "1431226800000,355908,categoryid,1114\n1431226800000,355908,888,n6.000 1121373\n",
        "item_properties_part2.csv": "timestamp,itemid,property,value\n1431226800000,248676,categoryid,7\n",
    },
    [("257597", "355908", 1_433_221_332_117), ("992329", "248676", 1_433_224_214_164)],
    {"id": "355908", "category": "1338"},
)
MIND = Sample(
    {
        "behaviors.tsv": "1\tU13740\t11/11/2019 9:05:58 AM\tN55189 N42782\tN55689-1 N35729-0\n"
        "2\tU91836\t11/12/2019 6:11:30 PM\t\tN20678-0 N39317-1 N58114-1\n",
        "news.tsv": 'N55689\tsports\tfootball_nfl\tThe "Heroes of 12\tAbstract\thttps://x\t[]\t[]\n'
        "N39317\tnews\tnewspolitics\tTitle\t\thttps://x\t[]\t[]\n",
    },
    [
        ("U13740", "N55689", 1_573_463_158_000),
        ("U91836", "N39317", 1_573_582_290_000), ("U91836", "N58114", 1_573_582_290_000),
    ],
    {"id": "N55689", "title": 'The "Heroes of 12', "category": "sports", "subcategory": "football_nfl"},
)  # fmt: skip
HM = Sample(
    {
        "transactions_train.csv": "t_dat,customer_id,article_id,price,sales_channel_id\n"
        "2018-09-20,000058a12d5b,0663713001,0.050830508474576264,2\n2018-09-20,000058a12d5b,0663713001,0.05,2\n",
        "articles.csv": "article_id,product_code,prod_name,product_type_name,product_group_name,colour_group_name,"
        'department_name\n0663713001,0663713,"Atlanta ""Push"" Body, Harlow",Underwear body,Underwear,Black,Lingerie\n',
        "customers.csv": "customer_id,FN,Active,club_member_status,fashion_news_frequency,age,postal_code\n"
        "000058a12d5b,,,ACTIVE,NONE,49.0,52043ee2162\n",
    },
    [("000058a12d5b", "0663713001", 1_537_401_600_000)] * 2,
    {"id": "0663713001", "name": 'Atlanta "Push" Body, Harlow', "group_": "Underwear"},
)
AMAZON = Sample(
    {
        "All_Beauty.jsonl": '{"rating": 5.0, "title": "Such", "text": "a \\"scent\\"", "images": [], '
        '"parent_asin": "B00YQ6X8EO", "user_id": "AGKHLEW2SOWHNMFQIJGBECAF7INQ", "timestamp": 1588687728923, '
        '"helpful_vote": 0, "verified_purchase": true}\n',
        "meta_All_Beauty.jsonl": '{"main_category": "All Beauty", "title": "Howard", "price": null, '
        '"store": "Howard Products", "categories": ["Oils", "Wood"], "details": {}, "parent_asin": "B00YQ6X8EO"}\n',
    },
    [("AGKHLEW2SOWHNMFQIJGBECAF7INQ", "B00YQ6X8EO", 1_588_687_728_923)],
    {"id": "B00YQ6X8EO", "store": "Howard Products", "categories": ["Oils", "Wood"], "price": None},
)
ML_1M = Sample(
    {
        "ratings.dat": "1::1193::5::978300760\n1::661::3::978302109\n",
        "users.dat": "1::F::1::10::48067\n",
        "movies.dat": "1193::Misérables, Les (1995)::Drama|Musical\n661::James and the Giant Peach (1996)::Animation\n",
    },
    [("1", "1193", 978_300_760_000), ("1", "661", 978_302_109_000)],
    {"id": "1193", "title": "Misérables, Les (1995)", "genres": ["Drama", "Musical"]},
)
ML_25M = Sample(
    {
        "ratings.csv": "userId,movieId,rating,timestamp\n1,296,5.0,1147880044\n",
        "movies.csv": 'movieId,title,genres\n296,"Great ""Pulp"" Fiction, The (1994)",Comedy|Crime\n',
    },
    [("1", "296", 1_147_880_044_000)],
    {"id": "296", "title": 'Great "Pulp" Fiction, The (1994)', "genres": ["Comedy", "Crime"]},
)
LASTFM = Sample(
    {
        "userid-timestamp-artid-artname-traid-traname.tsv": "user_000001\t2009-05-04T23:08:57Z\tf1b1cf71\tDeep\t\tA\n"
        'user_000001\t2009-05-04T13:54:10Z\ta7f7df4a\t"Heroes\t\tComposition 0919\n'
        "user_000001\t2009-05-04T13:52:04Z\t\tNobody knows\t\tB\n",
        "userid-profile.tsv": "#id\tgender\tage\tcountry\tregistered\nuser_000001\tm\t\tJapan\tAug 13, 2006\n",
    },
    [("user_000001", "a7f7df4a", 1_241_445_250_000), ("user_000001", "f1b1cf71", 1_241_478_537_000)],
    {"id": "a7f7df4a", "name": '"Heroes'},
    {"item id missing": 1},
)
OTTO = Sample(
    {
        "otto-recsys-train.jsonl": '{"session":0,"events":[{"aid":1517085,"ts":1659304800025,"type":"clicks"},'
        '{"aid":1563459,"ts":1659304904511,"type":"carts"}]}\n'
        '{"session":1,"events":[{"aid":424964,"ts":1659304800025,"type":"orders"}]}\n'
    },
    [
        ("0", "1517085", 1_659_304_800_025), ("0", "1563459", 1_659_304_904_511), ("1", "424964", 1_659_304_800_025),
    ],
)  # fmt: skip
INSTACART = Sample(
    {
        "orders.csv": "order_id,user_id,eval_set,order_number,order_dow,order_hour_of_day,days_since_prior_order\n"
        "2539329,1,prior,1,2,08,\n2398795,1,prior,2,3,07,15.0\n",
        "order_products__prior.csv": "order_id,product_id,add_to_cart_order,reordered\n2398795,196,1,1\n"
        "2539329,196,1,0\n2539329,14084,2,0\n",
        "products.csv": 'product_id,product_name,aisle_id,department_id\n196,"Soda, ""Zero""",77,7\n14084,Milk,91,16\n',
    },
    [("1", "14084", 1_002_000), ("1", "196", 1_001_000), ("1", "196", 2_001_000)],
    {"id": "196", "name": 'Soda, "Zero"', "department": "7"},
)
YOOCHOOSE = Sample(
    {
        "yoochoose-clicks.dat": "1,2014-04-07T10:51:09.277Z,214536502,0\n1,2014-04-07T10:54:09.868Z,214536500,S\n",
        "yoochoose-buys.dat": "420374,2014-04-06T18:44:58.314Z,214537888,12462,1\n",
    },
    [
        ("1", "214536500", 1_396_868_049_868), ("1", "214536502", 1_396_867_869_277),
        ("420374", "214537888", 1_396_809_898_314),
    ],
)  # fmt: skip
DIGINETICA = Sample(
    {
        "train-item-views.csv": "sessionId;userId;itemId;timeframe;eventdate\n1;NA;81766;526309;2016-05-09\n"
        "1;NA;31331;1031018;2016-05-09\n",
        "products.csv": "itemId;pricelog2;product.name.tokens\n81766;10;4875,776,56689\n31331;7;1,2\n",
        "product-categories.csv": "itemId;categoryId\n81766;139\n",
    },
    [("1", "31331", 1_462_752_000_000 + 1_031_018), ("1", "81766", 1_462_752_000_000 + 526_309)],
    {"id": "81766", "category": "139", "price": 10.0, "words": ["4875", "776", "56689"]},
)
KUAIREC = Sample(
    {
        "big_matrix.csv": "user_id,video_id,play_duration,video_duration,time,date,timestamp,watch_ratio\n"
        "0,3649,13838,10867,2020-07-05 00:08:23.438,20200705.0,1593878903.438,1.2733965215790926\n"
        "0,9598,13665,14000,2020-07-05 00:13:41.297,20200705.0,1593879221.297,0.5\n",
        "item_categories.csv": 'video_id,feat\n3649,"[27, 9]"\n9598,[8]\n',
    },
    [("0", "3649", 1_593_878_903_438)],
    {"id": "3649", "tags": ["27", "9"]},
    {"value below `at_least`": 1},
)
STEAM = Sample(
    {
        "steam_reviews.json.gz": "{u'username': u'Chaos Syren', u'hours': 0.1, u'product_id': u'725280', "
        "u'page_order': 0, u'date': u'2017-12-17', u'text': u'This \"would\" not be', u'early_access': False}\n"
        "{u'username': u\"Ariman's\", u'hours': 13.2, u'product_id': u'328100', u'date': u'2018-01-05', u'text': u''}\n"
    },
    [("Ariman's", "328100", 1_515_110_400_000), ("Chaos Syren", "725280", 1_513_468_800_000)],
)
TAOBAO = Sample(
    {"UserBehavior.csv": "1,2268318,2520377,pv,1511544070\n1,2333346,2520771,buy,1511561733\n1,5,6,pv,-1\n"},
    [("1", "2268318", 1_511_544_070_000), ("1", "2333346", 1_511_561_733_000)],
    {"id": "2268318", "category": "2520377"},
    {"time out of range": 1},
)
YELP = Sample(
    {
        "yelp_academic_dataset_review.json": '{"review_id":"KU_O5udG6zpxOg-VcAEodg","user_id":"mh_-eMZ6K5RLWhZyISBhwA",'
        '"business_id":"XQfwVwDr-v0ZS3_CbbE5Xw","stars":3.0,"text":"If you, \\n","date":"2018-07-07 22:09:11"}\n',
        "yelp_academic_dataset_business.json": '{"business_id":"XQfwVwDr-v0ZS3_CbbE5Xw","name":"Turning Point","city":'
        '"North Wales","stars":3.0,"attributes":{"WiFi":"u\'free\'"},"categories":"Restaurants, Breakfast & Brunch"}\n',
    },
    [("mh_-eMZ6K5RLWhZyISBhwA", "XQfwVwDr-v0ZS3_CbbE5Xw", 1_531_001_351_000)],
    {"id": "XQfwVwDr-v0ZS3_CbbE5Xw", "categories": ["Restaurants", "Breakfast & Brunch"], "stars": 3.0},
)
GOODREADS = Sample(
    {
        "goodreads_interactions_dedup.json.gz": '{"user_id": "8842281e1d1347389f2ab93d60773d4d", "book_id": "130580", '
        '"review_id": "330f9c153c8d3347eb914c06b89c94da", "is_read": true, "rating": 4, "date_added": '
        '"Mon Aug 01 13:41:57 -0700 2011", "date_updated": "Mon Aug 01 13:42:41 -0700 2011", "read_at": ""}\n',
        "goodreads_books.json.gz": '{"isbn": "0312853122", "title": "W.C. Fields", "book_id": "130580", '
        '"language_code": "eng", "num_pages": "256", "popular_shelves": [{"count": "3", "name": "to-read"}]}\n',
    },
    [("8842281e1d1347389f2ab93d60773d4d", "130580", 1_312_231_317_000)],
    {"id": "130580", "title": "W.C. Fields", "language": "eng", "pages": 256.0},
)
SAMPLES = {
    "retailrocket": RETAILROCKET, "mind": MIND, "hm": HM, "amazon-2023": AMAZON, "movielens-1m": ML_1M,
    "movielens-25m": ML_25M, "lastfm-1k": LASTFM, "otto": OTTO, "instacart": INSTACART, "yoochoose": YOOCHOOSE,
    "diginetica": DIGINETICA, "kuairec": KUAIREC, "steam": STEAM, "taobao": TAOBAO, "yelp": YELP,
    "goodreads": GOODREADS,
}  # fmt: skip


def test_each_card_of_the_gallery_has_a_sample():
    assert {path.stem for path in (CARDS / "gallery").glob("*.toml")} == set(SAMPLES)


@pytest.mark.parametrize("name", SAMPLES)
def test_a_card_of_the_gallery_reads_its_public_log(name: str, tmp_path: Path):
    card, sample = load_card(f"gallery/{name}"), SAMPLES[name]
    assert set(define(card, tmp_path).services) == {"query_tower", "item_tower"}
    for file, content in sample.files.items():
        path = tmp_path / card.folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        encoded = content.encode("latin-1" if file == "movies.dat" else "utf-8")
        path.write_bytes(gzip.compress(encoded) if file.endswith(".gz") else encoded)
    folder = dataset_folder(card, tmp_path, tmp_path)
    report = check_dataset(card, folder, 1.0)
    assert report.dropped == sample.dropped
    clicks = read_clicks(card, folder).to_pylist()
    assert sorted((row["query_id"], row["item_id"], row["event_time"]) for row in clicks) == sample.clicks
    assert all(row["event_type"] in card.clicks.events for row in clicks) or not card.clicks.events
    if sample.item:
        items = {row["id"]: row for row in load_catalogue(card, folder, "item").rows.to_pylist()}
        assert sample.item.items() <= items[sample.item["id"]].items()
